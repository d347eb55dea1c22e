-- One row per bin. Both spellings: `bins` has the edges, `packedBins` the first edge and the width of the bins.
CREATE OR REPLACE VIEW main.histograms AS
WITH logged AS (
    SELECT entity, project, run_id, step, key,
           TRY_CAST(json_extract(doc, '$.values') AS DOUBLE[]) AS counts,
           TRY_CAST(json_extract(doc, '$.bins') AS DOUBLE[]) AS edges,
           TRY_CAST(json_extract_string(doc, '$.packedBins.min') AS DOUBLE) AS first,
           TRY_CAST(json_extract_string(doc, '$.packedBins.size') AS DOUBLE) AS width
    FROM (
        SELECT entity, project, run_id, step, key, TRY_CAST(text AS JSON) AS doc
        FROM main.history WHERE text IS NOT NULL AND contains(text, '"histogram"')
    )
    WHERE json_type(doc) = 'OBJECT' AND json_extract_string(doc, '$._type') = 'histogram'
)
SELECT entity, project, run_id, key, step, bin,
       coalesce(edges[bin + 1], first + bin * width) AS low,
       coalesce(edges[bin + 2], first + (bin + 1) * width) AS high,
       count,
       entity || '/' || project || '/' || run_id AS run_path
FROM (
    SELECT entity, project, run_id, key, step, edges, first, width,
           unnest(range(len(counts)::BIGINT)) AS bin, unnest(counts) AS count
    FROM logged
);
