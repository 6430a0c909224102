CREATE TABLE shares (
    key_id      BLOB PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    share_index INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    record      BLOB NOT NULL,
    identities  BLOB NOT NULL,
    sealed      BLOB NOT NULL
);

CREATE TABLE bans (
    key_id BLOB NOT NULL,
    epoch  INTEGER NOT NULL,
    peer   TEXT NOT NULL,
    reason TEXT NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (key_id, epoch, peer)
) WITHOUT ROWID;

CREATE TABLE pins (
    peer     TEXT PRIMARY KEY,
    identity BLOB NOT NULL
) WITHOUT ROWID;
