-- Packages that wait for their users, each sealed to its user's key. A package begins with its version.
CREATE TABLE delegate_shares (
    session BLOB NOT NULL,
    party TEXT NOT NULL,
    tenant TEXT NOT NULL,
    package BLOB NOT NULL,
    PRIMARY KEY (session, party)
) STRICT;
CREATE INDEX delegate_shares_by_tenant ON delegate_shares (tenant);
