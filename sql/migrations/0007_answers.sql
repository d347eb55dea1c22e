-- What the server's clock showed when it was asked for a run's record: a change in that same second may not be in it.
-- Null: not known.
ALTER TABLE store.runs ADD COLUMN asked_at TIMESTAMP;

-- The columns whose values the server sent in a form that cannot be read, comma-joined: they are what they were before.
ALTER TABLE store.runs ADD COLUMN unread VARCHAR;
