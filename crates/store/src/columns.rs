//! Columns back into values. What lies in a database was written by us: anything else is damage.

use quorate_types::Error;
use rusqlite::Row;
use rusqlite::types::Type;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

fn damaged(
    column: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}

/// The shape of the documents that this crate writes. The second has its bytes in Base64, the third
/// names the members of API keys.
pub(crate) const DOCUMENT_VERSION: u32 = 3;

/// Whether an error is a row that cannot be read, in contrast to a disk that cannot.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..)
    )
}

/// A value as the bytes of a JSON column.
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("stored values are plain data")
}

/// A document beside its version, which is the column before it.
pub(crate) fn document<T: DeserializeOwned>(
    row: &Row<'_>,
    version_column: usize,
) -> rusqlite::Result<T> {
    let version: u32 = row.get(version_column)?;
    if version > DOCUMENT_VERSION {
        let newer = Error::invalid(format!("a newer program wrote this: version {version}"));
        return Err(damaged(version_column, Type::Integer, newer));
    }
    json(row, version_column + 1)
}

pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let bytes = row.get_ref(column)?.as_bytes()?;
    serde_json::from_slice(bytes).map_err(|error| damaged(column, Type::Blob, error))
}

pub(crate) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let bytes = row.get_ref(column)?.as_bytes()?;
    Uuid::from_slice(bytes).map_err(|error| damaged(column, Type::Blob, error))
}

pub(crate) fn name<T: std::str::FromStr<Err = Error>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error: Error| damaged(column, Type::Text, error))
}

/// An unsigned number kept in SQLite's signed one, bit by bit.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use quorate_types::PartyId;
    use rusqlite::Connection;

    use super::*;

    fn read<T>(
        sql: &str,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        Connection::open_in_memory().unwrap().query_row(sql, [], read)
    }

    #[test]
    fn a_damaged_column_is_an_error_and_not_a_panic() {
        assert!(read("SELECT x'00'", |row| id(row, 0)).is_err());
        assert!(read("SELECT 'text'", |row| id(row, 0)).is_err());
        assert!(read("SELECT x'00'", |row| json::<u32>(row, 0)).is_err());
        assert!(read("SELECT 'no name'", |row| name::<PartyId>(row, 0)).is_err());
        assert!(read("SELECT NULL", |row| unsigned(row, 0)).is_err());
        assert!(read("SELECT 1, x'00'", |row| document::<u32>(row, 0)).is_err());
    }

    #[test]
    fn a_document_of_a_newer_version_is_not_guessed_at() {
        let of = |sql: &str| read(sql, |row| document::<u32>(row, 0));
        let versioned = |version| of(&format!("SELECT {version}, CAST('7' AS BLOB)"));
        for version in 1..=DOCUMENT_VERSION {
            assert_eq!(versioned(version).unwrap(), 7);
        }
        let error = versioned(DOCUMENT_VERSION + 1).unwrap_err();
        assert!(is_damage(&error) && error.to_string().contains("newer program"), "{error}");
    }

    #[test]
    fn an_unsigned_number_keeps_all_its_bits() {
        assert_eq!(read("SELECT -1", |row| unsigned(row, 0)).unwrap(), u64::MAX);
    }
}
