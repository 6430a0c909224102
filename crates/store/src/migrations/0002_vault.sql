ALTER TABLE shares RENAME TO old_shares;
ALTER TABLE bans RENAME TO old_bans;
ALTER TABLE pins RENAME TO old_pins;

-- One row per key and epoch. state: 0 pending, 1 active, 2 retired. A tag authenticates its row and
-- is missing until the vault is unlocked for the first time.
CREATE TABLE shares (
    key_id        BLOB NOT NULL,
    epoch         INTEGER NOT NULL,
    state         INTEGER NOT NULL,
    tenant        TEXT NOT NULL,
    share_index   INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    record        BLOB NOT NULL,
    identities    BLOB NOT NULL,
    execution     BLOB NOT NULL,
    confirmations BLOB NOT NULL,
    sealed        BLOB NOT NULL,
    sealed_hash   BLOB,
    tag           BLOB,
    PRIMARY KEY (key_id, epoch)
);
CREATE INDEX shares_pending ON shares (tenant) WHERE state = 0;

CREATE TABLE bans (
    key_id   BLOB NOT NULL,
    epoch    INTEGER NOT NULL,
    peer     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    at       INTEGER NOT NULL,
    evidence BLOB NOT NULL,
    tag      BLOB,
    PRIMARY KEY (key_id, epoch, peer)
) WITHOUT ROWID;

-- tenant: empty for a name that the operator has bound.
CREATE TABLE pins (
    tenant   TEXT NOT NULL,
    peer     TEXT NOT NULL,
    identity BLOB NOT NULL,
    tag      BLOB,
    PRIMARY KEY (tenant, peer)
) WITHOUT ROWID;

CREATE TABLE witnessed (
    identity   BLOB PRIMARY KEY,
    generation INTEGER NOT NULL,
    handshake  BLOB NOT NULL,
    tag        BLOB
) WITHOUT ROWID;

-- One row: how often shares and bans have changed, and a keyed sum over all tagged rows.
CREATE TABLE head (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    version    INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    sum        BLOB NOT NULL,
    check_tag  BLOB NOT NULL,
    tag        BLOB NOT NULL
);

INSERT INTO shares
SELECT key_id, epoch, 1, coalesce(json_extract(CAST(record AS TEXT), '$.tenant'), 'default'),
       share_index, created_at, record, identities, zeroblob(32), x'', sealed, NULL, NULL
FROM old_shares;
INSERT INTO bans SELECT key_id, epoch, peer, reason, at, x'', NULL FROM old_bans;
INSERT INTO pins SELECT '', peer, identity, NULL FROM old_pins;

DROP TABLE old_shares;
DROP TABLE old_bans;
DROP TABLE old_pins;
