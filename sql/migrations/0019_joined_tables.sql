-- Joined and partitioned tables are Parquet, too. Their `source` is kind, owner and name of their file, with slashes, since
-- equal files in two artifacts name different tables; `made_of` is a digest of the pieces. Null of plain tables.
ALTER TABLE store.converted_tables ADD COLUMN made_of VARCHAR;
