CREATE TABLE bans (
    key_id   BLOB NOT NULL,
    reporter TEXT NOT NULL,
    peer     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    session  BLOB NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (key_id, reporter, peer)
) WITHOUT ROWID;
