-- The views of WP-PostViews (and of others that keep them in the field `views`) as rows for import. Change the tables'
-- prefixes and the form of an article's URL to yours; {date} is year, month and day.
--
--   mysql -N -B DATABASE < wp-postviews.sql | footfall import - --site KEY
SELECT '', 'views', 'all', 'all', '', CAST(SUM(m.meta_value) AS SIGNED)
FROM wp_postmeta m JOIN wp_posts p ON p.ID = m.post_id WHERE m.meta_key = 'views' AND p.post_status = 'publish'
UNION ALL
SELECT '', 'views', 'all', 'all', REPLACE(REPLACE('/{date}/{name}/',
  '{date}', SUBSTR(REPLACE(p.post_date, '-', '/'), 1, 10)), '{name}', p.post_name), m.meta_value
FROM wp_postmeta m JOIN wp_posts p ON p.ID = m.post_id WHERE m.meta_key = 'views' AND p.post_status = 'publish';
