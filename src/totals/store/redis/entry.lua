#!lua
-- Counts an entry of a site.
-- KEYS[1]  the site's meta hash
-- ARGV     a number that the entry's is above
-- Answers  its number
local held = redis.call('HGET', KEYS[1], 'entry') or '0'
if held == '' or string.find(held, '%D') then return held end
local number = string.format('%.0f', math.max(held + 0, ARGV[1] + 0) + 1)
redis.call('HSET', KEYS[1], 'entry', number)
return number
