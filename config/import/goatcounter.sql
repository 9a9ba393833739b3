-- GoatCounter's CSV export (each row a view) as rows of days for import. Change the hours to those of your zone.
--
--   gunzip goatcounter-export.csv.gz
--   sqlite3 -tabs :memory: '.import --csv goatcounter-export.csv hits' '.read goatcounter.sql' > days.csv
--   footfall import days.csv --site KEY --add --roll-up
--
-- --add, because a page may stand in it in several ways, as /a and /a/.
-- A session of GoatCounter is a visit, and a visitor of each day that it reaches into. Robots and events are left out.
CREATE VIEW views AS
SELECT *, date("Date", '+7 hours') AS day FROM hits WHERE Bot = '0' AND Event = 'false';

SELECT '', 'views', 'day', day, '', count(*) FROM views GROUP BY day
UNION ALL
SELECT '', 'visitors', 'day', day, '', count(DISTINCT Session) FROM views GROUP BY day
UNION ALL
SELECT '', 'visits', 'day', first, '', count(*) FROM (SELECT min(day) AS first FROM views GROUP BY Session) GROUP BY first
UNION ALL
SELECT '', 'views', 'day', day, "2Path", count(*) FROM views GROUP BY day, "2Path";
