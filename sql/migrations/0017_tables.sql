-- W&B Tables whose file is here, as Parquet: a content named by kind 'table', owner 0 and the digest of the file.
CREATE TABLE store.converted_tables (
    source VARCHAR,                -- the digest of the table's own file
    columns VARCHAR,               -- JSON lists: the columns as they were logged, their names and their types in Parquet
    names VARCHAR,
    types VARCHAR,
    rows BIGINT,
    error VARCHAR,                 -- why there is no Parquet; null if there is
    made_by BIGINT,                -- the version of the conversion
    made_at TIMESTAMP,
    place VARCHAR,                 -- the folder of content that media cells name; null if none does
    absent BIGINT                  -- media cells whose content was not here
);

-- Artifacts by the ids that clients gave them, which values of tables name. No artifact_id: the server knew none then.
CREATE TABLE store.artifact_clients (client_id VARCHAR, artifact_id VARCHAR, asked_at TIMESTAMP);

-- The newest table of each run and key, as the relations of keys show it: one row per file that it consists of.
CREATE TABLE store.newest_tables (project_number BIGINT, key VARCHAR, rid BIGINT, step BIGINT, digest VARCHAR);

-- The relations of keys: their names, which stay, and the digest of the statement that made each.
CREATE TABLE store.table_views (project_number BIGINT, key VARCHAR, name VARCHAR, made_of VARCHAR);
