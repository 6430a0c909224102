-- A tag authenticates its row and is missing until the ledger is opened for the first time.
ALTER TABLE consumed ADD COLUMN tag BLOB;
ALTER TABLE totals ADD COLUMN tag BLOB;

-- One row: how often the ledger was written to, and a keyed sum over all tagged rows.
CREATE TABLE head (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    version    INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    sum        BLOB NOT NULL,
    check_tag  BLOB NOT NULL,
    tag        BLOB NOT NULL
);
