-- Which store this is, and how often it has been folded into its file.
CREATE TABLE generation (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    store    BLOB NOT NULL,
    number   INTEGER NOT NULL
);
