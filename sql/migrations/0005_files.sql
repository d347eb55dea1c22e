-- The files of runs: what the server tells of them. Their content stays there.
CREATE TABLE store.run_files (
    rid BIGINT, file_id VARCHAR, name VARCHAR, size BIGINT, mimetype VARCHAR, updated_at TIMESTAMP,
    md5 VARCHAR                    -- base64
);

-- When the list was taken last: a run whose record was written since may have others.
ALTER TABLE store.run_extras ADD COLUMN listed_at TIMESTAMP;
