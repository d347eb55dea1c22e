-- When all artifacts of a project were last listed, by how much the server's count of collections differed from the
-- listed ones then, and why the last look at them failed.
CREATE TABLE store.artifact_listings (
    entity VARCHAR, project VARCHAR, listed_at TIMESTAMP, unexplained BIGINT, error VARCHAR
);

-- `mark` is what the server returned of the collection and its newest version when its versions were last pulled,
-- `seen_at` when a complete listing last contained it.
CREATE TABLE store.artifact_collections (
    entity VARCHAR, project VARCHAR, collection_id VARCHAR, type VARCHAR, name VARCHAR,
    kind VARCHAR,                  -- ArtifactSequence, or ArtifactPortfolio for one of links
    description VARCHAR, created_at TIMESTAMP, mark VARCHAR, facts VARCHAR,
    seen_at TIMESTAMP
);

-- `facts` has fields as the server returned them, as JSON, for clients of its API.
-- One row per version of a collection. A version that is linked to another collection is a version there, too, of the
-- same artifact_id. `aid` is this mirror's own number, `seen_at` when the server last listed the version.
CREATE TABLE store.artifact_records (
    aid BIGINT, entity VARCHAR, project VARCHAR, collection_id VARCHAR, type VARCHAR, collection VARCHAR,
    version_number BIGINT, artifact_id VARCHAR, digest VARCHAR, size BIGINT, file_count BIGINT, state VARCHAR,
    created_at TIMESTAMP, updated_at TIMESTAMP, run_entity VARCHAR, run_project VARCHAR, run_id VARCHAR,
    description VARCHAR, metadata VARCHAR, ttl_s BIGINT, facts VARCHAR, seen_at TIMESTAMP,
    deleted_at TIMESTAMP,
    entries_of VARCHAR,            -- the digest of the version whose entries are stored; null while none are
    attempts BIGINT, next_try_at TIMESTAMP, error VARCHAR
);

CREATE TABLE store.artifact_aliases (aid BIGINT, alias VARCHAR, position BIGINT);

-- The entries of manifests. `md5` is the digest that the manifest lists: of a reference it may be an ETag or an address.
CREATE TABLE store.artifact_entries (
    aid BIGINT, path VARCHAR, size BIGINT, md5 VARCHAR, reference VARCHAR,
    birth_id VARCHAR,              -- birthArtifactID, the artifact that the content was uploaded with
    extra VARCHAR                  -- JSON
);

-- Artifacts that a run used ('input') or logged ('output'), wherever they are.
CREATE TABLE store.artifact_uses (
    rid BIGINT, relation VARCHAR, artifact_entity VARCHAR, artifact_project VARCHAR, type VARCHAR, collection VARCHAR,
    version_number BIGINT, artifact_id VARCHAR
);

-- When the artifacts of a run were last pulled.
ALTER TABLE store.run_extras ADD COLUMN artifacts_at TIMESTAMP;
