-- Requests that were allowed. nonce: the beginning of a hash over initiator and nonce. key_id: empty
-- for keys that are made. Times in ms since 1970.
CREATE TABLE consumed (
    nonce      BLOB PRIMARY KEY,
    session_id BLOB NOT NULL,
    key_id     BLOB NOT NULL,
    at         INTEGER NOT NULL,
    keep_until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX consumed_until ON consumed (keep_until);

CREATE TABLE totals (
    key_id BLOB PRIMARY KEY,
    total  INTEGER NOT NULL
) WITHOUT ROWID;
