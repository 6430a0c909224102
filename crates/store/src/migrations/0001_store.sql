CREATE TABLE sessions (
    id         BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL,
    is_final   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    document   BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_open ON sessions (id) WHERE is_final = 0;
CREATE INDEX sessions_by_time ON sessions (created_at);
CREATE INDEX sessions_by_tenant ON sessions (tenant, created_at);

CREATE TABLE keys (
    id         BLOB PRIMARY KEY,
    tenant     TEXT NOT NULL,
    public_key BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    document   BLOB NOT NULL
) WITHOUT ROWID;
-- Not unique: a second claim to a public key is a party's lie and must not stop the writer.
CREATE INDEX keys_by_public_key ON keys (public_key, created_at);
CREATE INDEX keys_by_time ON keys (created_at);
CREATE INDEX keys_by_tenant ON keys (tenant, created_at);

CREATE TABLE accounts (
    id         BLOB PRIMARY KEY,
    created_at INTEGER NOT NULL,
    document   BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE pending_keys (
    session BLOB PRIMARY KEY,
    account BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE idempotency (
    tenant       TEXT NOT NULL,
    key          TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    session      BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_time ON idempotency (created_at);

CREATE TABLE parties (
    id            TEXT PRIMARY KEY,
    registered_at INTEGER NOT NULL,
    document      BLOB NOT NULL
) WITHOUT ROWID;

-- Bodies are large: with rowid, so that deleting one does not move the others.
CREATE TABLE messages (
    id           BLOB PRIMARY KEY,
    sequence     INTEGER NOT NULL,
    session      BLOB NOT NULL,
    from_party   TEXT NOT NULL,
    is_broadcast INTEGER NOT NULL,
    round        INTEGER NOT NULL,
    type         TEXT NOT NULL,
    payload      BLOB NOT NULL,
    created_at   INTEGER NOT NULL
);
CREATE INDEX messages_by_session ON messages (session);

CREATE TABLE deliveries (
    message      BLOB NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    place        INTEGER NOT NULL,
    party        TEXT NOT NULL,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (message, place)
) WITHOUT ROWID;

CREATE TABLE api_keys (
    id       TEXT PRIMARY KEY,
    hash     BLOB NOT NULL,
    document BLOB NOT NULL
) WITHOUT ROWID;
