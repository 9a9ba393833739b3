-- The counter of NukeViet 4 as rows for import. Change the tables' prefixes and the form of an article's URL to yours.
--
--   mysql -N -B DATABASE < nukeviet.sql | footfall import - --site KEY
--
-- NukeViet counts a visit at most every 30 minutes. It keeps all years, the months of this year and the days of this
-- month, and no weeks.
SELECT '', 'visits', 'all', 'all', '', c_count FROM nv4_counter WHERE c_type = 'total' AND c_val = 'hits'
UNION ALL
SELECT '', 'visits', 'year', c_val, '', c_count FROM nv4_counter WHERE c_type = 'year' AND c_count > 0
UNION ALL
SELECT '', 'visits', 'month', REPLACE(REPLACE('{year}-{month}',
  '{year}', (SELECT MAX(c_val) FROM nv4_counter WHERE c_type = 'year' AND c_count > 0)),
  '{month}', SUBSTR('01-02-03-04-05-06-07-08-09-10-11-12', INSTR('JanFebMarAprMayJunJulAugSepOctNovDec', c_val), 2)),
  '', c_count FROM nv4_counter WHERE c_type = 'month' AND c_count > 0
UNION ALL
SELECT '', 'visits', 'day', REPLACE(REPLACE(REPLACE('{year}-{month}-{day}',
  '{year}', (SELECT MAX(c_val) FROM nv4_counter WHERE c_type = 'year' AND c_count > 0)),
  '{month}', (SELECT MAX(SUBSTR('01-02-03-04-05-06-07-08-09-10-11-12',
    INSTR('JanFebMarAprMayJunJulAugSepOctNovDec', c_val), 2)) FROM nv4_counter WHERE c_type = 'month' AND c_count > 0)),
  '{day}', c_val), '', c_count FROM nv4_counter WHERE c_type = 'day' AND c_count > 0
UNION ALL
SELECT '', 'views', 'all', 'all', REPLACE(REPLACE(REPLACE('/news/{category}/{alias}-{id}.html',
  '{id}', a.id), '{category}', c.alias), '{alias}', a.alias), a.hitstotal
FROM nv4_vi_news_rows a JOIN nv4_vi_news_cat c ON c.catid = a.catid WHERE a.hitstotal > 0;
