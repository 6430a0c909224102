-- Keys with which nothing is made. Apart from the keys' documents, which a refresh replaces.
CREATE TABLE frozen_keys (
    key_id   BLOB PRIMARY KEY,
    version  INTEGER NOT NULL,
    document BLOB NOT NULL
) WITHOUT ROWID;
