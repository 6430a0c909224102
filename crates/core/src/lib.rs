//! Pure state machines of sessions, mailboxes, parties and accounts
