-- The epochs of a key; those of before had only their first, without an attestation.
ALTER TABLE keys ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

CREATE TABLE key_epochs (
    key_id   BLOB NOT NULL,
    epoch    INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (key_id, epoch)
) WITHOUT ROWID;

-- A ban holds for one epoch.
ALTER TABLE bans RENAME TO old_bans;
CREATE TABLE bans (
    key_id   BLOB NOT NULL,
    epoch    INTEGER NOT NULL,
    reporter TEXT NOT NULL,
    peer     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    session  BLOB NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (key_id, epoch, reporter, peer)
) WITHOUT ROWID;
INSERT INTO bans SELECT key_id, 0, reporter, peer, reason, session, at FROM old_bans;
DROP TABLE old_bans;
