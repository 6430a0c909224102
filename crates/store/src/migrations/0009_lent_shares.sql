-- Shares that users lend delegates in open sessions, each sealed to its delegate's key for one request. A
-- package begins with its version.
CREATE TABLE lent_shares (
    session BLOB PRIMARY KEY,
    delegate TEXT NOT NULL,
    holder_index INTEGER NOT NULL,
    package BLOB NOT NULL
) STRICT;
