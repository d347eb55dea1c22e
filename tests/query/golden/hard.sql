SELECT * FROM (VALUES
    (1, 9007199254740993, 0.1::DOUBLE, true, 'plain', TIMESTAMP '2026-01-01 00:00:00', [1, 2], {'a': 1, 'b': 'x'}),
    (2, -9223372036854775808, 'nan'::DOUBLE, false, '', TIMESTAMP '2026-12-31 23:59:59.999999', [], {'a': NULL, 'b': ''}),
    (3, NULL, 'inf'::DOUBLE, NULL, NULL, NULL, NULL, NULL),
    (4, 0, '-inf'::DOUBLE, true, 'NULL', TIMESTAMP '1969-12-31 23:59:59.000001', [NULL], {'a': 3, 'b': 'NaN'}),
    (5, -1, -0.0::DOUBLE, true, 'tab' || chr(9) || 'line' || chr(10) || 'return' || chr(13) || 'end', NULL, [3], NULL),
    (6, 10, 1e300::DOUBLE, true, 'comma, "quote", pipe | and back\slash', NULL, [4], NULL),
    (7, 11, 1e-7::DOUBLE, true, 'Zürich 東京 🚀 é', NULL, [5], NULL),
    (8, 12, 123456789.125::DOUBLE, true, 'bell' || chr(7) || ' escape' || chr(27) || '[31m red' || chr(27) || '[0m', NULL, [6], NULL),
    (9, 13, 2::DOUBLE, true, ' space around ', NULL, [7], NULL),
    (10, 14, 3::DOUBLE, true, '{"json": [1, NaN, "NaN"]}', NULL, [8], NULL),
    (11, 15, 4::DOUBLE, true, repeat('long ', 60), NULL, [9], NULL)
) AS t(id, "big int", number, flag, "text", "time", list, struct)
ORDER BY id;
