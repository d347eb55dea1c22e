-- Content of files, stored once each in the folder `blobs` under the SHA-256 of its bytes.
CREATE TABLE store.contents (
    digest VARCHAR, size BIGINT,
    md5 VARCHAR,                   -- base64, as servers list it
    stored_at TIMESTAMP,
    unnamed_at TIMESTAMP           -- since when nothing names it; null while something does
);

-- What names content. A file of a run is of kind 'file', its owner the run's rid. `digest`, `size`, `md5` and `updated_at`
-- describe the content that is held, the others the last failure to download what the server has now.
CREATE TABLE store.content_names (
    kind VARCHAR, owner BIGINT, name VARCHAR,
    digest VARCHAR, size BIGINT, md5 VARCHAR, updated_at TIMESTAMP,
    attempts BIGINT, next_try_at TIMESTAMP, error VARCHAR
);
