-- Which mirror this is, and how often it was published: a state takes the place of its own published file alone, and
-- never that of a newer one. All copies of a mirror that is older than this get the same identity.
INSERT INTO store.meta
SELECT 'mirror', CASE WHEN EXISTS (FROM store.projects) THEN md5(CAST(applied_at AS VARCHAR)) ELSE CAST(uuid() AS VARCHAR) END
FROM store.migrations WHERE number = 1;
INSERT INTO store.meta VALUES ('generation', '0');

-- SHA-256 of the file as it was written; null for those that were written before digests were kept.
ALTER TABLE store.segments ADD COLUMN digest VARCHAR;
