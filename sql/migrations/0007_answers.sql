-- What the server's clock showed when it was asked for a run's record: a change in that same second may not be in it.
-- Null: not known.
ALTER TABLE store.runs ADD COLUMN asked_at TIMESTAMP;
