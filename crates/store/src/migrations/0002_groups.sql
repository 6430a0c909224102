CREATE TABLE relay_clients (
    id         INTEGER PRIMARY KEY,
    token_hash BLOB NOT NULL
);

CREATE TABLE relay_groups (
    id       BLOB PRIMARY KEY,
    document BLOB NOT NULL
) WITHOUT ROWID;

-- No foreign key: the writer must not meet a constraint, and a group's end names its sessions.
CREATE TABLE relay_sessions (
    id       BLOB PRIMARY KEY,
    of_group BLOB NOT NULL,
    document BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX relay_sessions_by_group ON relay_sessions (of_group);
