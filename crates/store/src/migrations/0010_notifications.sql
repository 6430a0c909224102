-- Notifications: one row for each step of a session and each recipient; all ways in which it may end
-- are one step. An address is in the document while the notification waits.
CREATE TABLE notifications (
    id BLOB NOT NULL PRIMARY KEY,
    session BLOB NOT NULL,
    recipient TEXT NOT NULL,
    step TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    document BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX notifications_once ON notifications (session, recipient, step);
CREATE INDEX notifications_by_time ON notifications (created_at, id);
CREATE INDEX notifications_by_state ON notifications (state, created_at, id);
