//! Bytes in stored documents: Base64 text. Documents of earlier versions have lists of numbers, which
//! are read, too; formats that are no text keep the bytes as they are.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// For `#[serde(with = "…")]`.
///
/// # Errors
/// The serializer's.
pub fn serialize<T, S>(bytes: &T, out: S) -> Result<S::Ok, S::Error>
where
    T: AsRef<[u8]> + Serialize,
    S: Serializer,
{
    match out.is_human_readable() {
        true => out.serialize_str(&STANDARD.encode(bytes)),
        false => bytes.serialize(out),
    }
}

/// For `#[serde(with = "…")]`.
///
/// # Errors
/// When there are no bytes, or not as many as there must be.
pub fn deserialize<'de, T, D>(input: D) -> Result<T, D::Error>
where
    T: TryFrom<Vec<u8>> + Deserialize<'de>,
    D: Deserializer<'de>,
{
    match input.is_human_readable() {
        true => input.deserialize_any(Bytes(PhantomData)),
        false => T::deserialize(input),
    }
}

struct Bytes<T>(PhantomData<T>);

impl<T: TryFrom<Vec<u8>>> Bytes<T> {
    fn fit<E: de::Error>(self, bytes: Vec<u8>) -> Result<T, E> {
        let length = bytes.len();
        T::try_from(bytes).map_err(|_| E::invalid_length(length, &self))
    }
}

impl<'de, T: TryFrom<Vec<u8>>> Visitor<'de> for Bytes<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("bytes of the right number in Base64, or a list of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let bytes = STANDARD.decode(text).map_err(E::custom)?;
        self.fit(bytes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = list.next_element()? {
            bytes.push(byte);
        }
        self.fit(bytes)
    }
}

/// Bytes that may be missing.
pub mod optional {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(bound(
        serialize = "T: AsRef<[u8]> + Serialize",
        deserialize = "T: TryFrom<Vec<u8>> + Deserialize<'de>"
    ))]
    struct Text<T>(#[serde(with = "super")] T);

    /// For `#[serde(with = "…")]`.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<T, S>(bytes: &Option<T>, out: S) -> Result<S::Ok, S::Error>
    where
        T: AsRef<[u8]> + Serialize + Clone,
        S: Serializer,
    {
        bytes.clone().map(Text).serialize(out)
    }

    /// For `#[serde(with = "…")]`.
    ///
    /// # Errors
    /// When there are bytes, and not as many as there must be.
    pub fn deserialize<'de, T, D>(input: D) -> Result<Option<T>, D::Error>
    where
        T: TryFrom<Vec<u8>> + Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Option::<Text<T>>::deserialize(input)?.map(|text| text.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Document {
        #[serde(with = "super")]
        key: [u8; 2],
        #[serde(with = "super")]
        body: bytes::Bytes,
        #[serde(default, with = "optional")]
        maybe: Option<Vec<u8>>,
    }

    fn document(maybe: Option<Vec<u8>>) -> Document {
        Document { key: [1, 255], body: bytes::Bytes::from_static(b"body"), maybe }
    }

    #[test]
    fn bytes_are_written_as_text_and_read_as_text_or_numbers() {
        let text = r#"{"key":"Af8=","body":"Ym9keQ==","maybe":"AA=="}"#;
        assert_eq!(serde_json::to_string(&document(Some(vec![0]))).unwrap(), text);
        assert_eq!(serde_json::from_str::<Document>(text).unwrap(), document(Some(vec![0])));
        let before = r#"{"key":[1,255],"body":[98,111,100,121],"maybe":[0]}"#;
        assert_eq!(serde_json::from_str::<Document>(before).unwrap(), document(Some(vec![0])));
        for missing in [
            r#"{"key":"Af8=","body":"Ym9keQ==","maybe":null}"#,
            &text.replace(r#","maybe":"AA==""#, ""),
        ] {
            assert_eq!(serde_json::from_str::<Document>(missing).unwrap(), document(None));
        }
    }

    #[test]
    fn other_values_are_refused() {
        for wrong in [r#""Af8""#, r#""AQ==""#, "[1]", "[1,256]", "[1,2,3]", "7", "null", r#""%%""#]
        {
            let text = format!(r#"{{"key":{wrong},"body":""}}"#);
            assert!(serde_json::from_str::<Document>(&text).is_err(), "{wrong}");
        }
    }

    #[test]
    fn formats_that_are_no_text_keep_the_bytes() {
        #[derive(Serialize, Deserialize)]
        struct Plain {
            key: [u8; 2],
            body: bytes::Bytes,
            maybe: Option<Vec<u8>>,
        }
        let bytes = postcard::to_allocvec(&document(Some(vec![9]))).unwrap();
        let plain: Plain = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(
            (plain.key, &plain.body[..], plain.maybe),
            ([1, 255], &b"body"[..], Some(vec![9]))
        );
        assert_eq!(postcard::from_bytes::<Document>(&bytes).unwrap(), document(Some(vec![9])));
    }
}
