-- One row: how far the ledger beside the vault was when that was last noted.
CREATE TABLE ledger (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    tag        BLOB
);
