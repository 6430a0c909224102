//! SQLite behind the ports: one writer thread, group commit, migrations
