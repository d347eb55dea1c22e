-- Runs that were read from files of the official client, and that the server is not known to hold in full.
CREATE TABLE store.local_runs (
    rid BIGINT,
    guessed BOOLEAN,               -- the files name no entity, so the server may know the run under another one
    state VARCHAR                  -- what reading goes on from: documents and counts, as JSON
);

-- The files, and how far each is read.
CREATE TABLE store.local_files (
    path VARCHAR, entity VARCHAR, project VARCHAR, run_id VARCHAR,
    started_at VARCHAR,            -- when the run's process began, which tells a copy of a file from a resumed run's next one
    read_to BIGINT, size BIGINT, mtime BIGINT,
    head VARCHAR,                  -- checksum of the start, to see that a file was replaced
    damaged BIGINT, shift BIGINT,  -- damaged places skipped; what is added to each step
    note VARCHAR,                  -- why the file is not read any more
    read_at TIMESTAMP
);
