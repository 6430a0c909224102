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

/// A value as the bytes of a JSON column.
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("stored values are plain data")
}

pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let bytes = row.get_ref(column)?.as_blob()?;
    serde_json::from_slice(bytes).map_err(|error| damaged(column, Type::Blob, error))
}

pub(crate) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let bytes = row.get_ref(column)?.as_blob()?;
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
    }

    #[test]
    fn an_unsigned_number_keeps_all_its_bits() {
        assert_eq!(read("SELECT -1", |row| unsigned(row, 0)).unwrap(), u64::MAX);
    }
}
