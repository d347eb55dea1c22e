-- The last mirrored line may not be the server's any more: it is to be compared. Kept until that was done, however many
-- passes fail or are killed before.
ALTER TABLE store.run_history ADD COLUMN doubted BOOLEAN DEFAULT false;
