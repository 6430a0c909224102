-- What a document looks like; those of before are of version 1.
ALTER TABLE sessions ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE keys ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE accounts ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE parties ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE api_keys ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

-- How the request was hashed; 1 was a hash of no lasting form.
ALTER TABLE idempotency ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

-- In the order in which the open sessions are asked for at start.
DROP INDEX sessions_open;
CREATE INDEX sessions_open_by_time ON sessions (created_at, id) WHERE is_final = 0;
