#!lua
-- Registers a writer with a site's data, which is born if there is none.
-- KEYS[1]  the site's meta hash
-- ARGV     the format, a data set id for a birth, the civil day, the zone, the writer
-- Answers  the data set, the first day ever attached, 1 if it was born just now
local key, format, proposed, today, zone, writer = KEYS[1], unpack(ARGV)

local held, dataset, since = unpack(redis.call('HMGET', key, 'format', 'dataset', 'since'))
if held and held ~= format then
  return redis.error_reply('FOOTFALL the data of this site is of format ' .. held ..
    ', this version of footfall reads format ' .. format)
end
-- Days as YYYY-MM-DD: compared as numbers, since the order of strings depends on the server's locale.
local function number(day) return tonumber((string.gsub(day, '-', ''))) or math.huge end
if not since or number(today) < number(since) then since = today end

redis.call('HSET', key, 'format', format, 'dataset', dataset or proposed, 'since', since, 'zone', zone,
  'writer:' .. writer, redis.call('TIME')[1])
return {dataset or proposed, since, dataset and 0 or 1}
