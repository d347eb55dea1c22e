-- How many of a key's numbers are whole and written as such, so that a column of them can be BIGINT.
ALTER TABLE store.leaf_keys ADD COLUMN integers BIGINT DEFAULT 0;

UPDATE store.leaf_keys AS k SET integers = c.integers
FROM (
    SELECT
        p.number AS project_number, l.doc, l.key,
        count(*) FILTER (
            CASE
                WHEN l.number = trunc(l.number) AND abs(l.number) < 9.223372036854775e18
                THEN NOT contains(l.text, '.') AND NOT contains(l.text, 'e') ELSE false
            END
        ) AS integers
    FROM store.leaves AS l
    JOIN store.runs AS r ON r.rid = l.rid
    JOIN store.projects AS p ON p.entity = r.entity AND p.project = r.project
    WHERE l.element IS NULL
    GROUP BY ALL
) AS c
WHERE c.project_number = k.project_number AND c.doc = k.doc AND c.key = k.key;
