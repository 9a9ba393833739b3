#!lua
-- Counts an entry of a site, unless a later one than is known was counted within the last two seconds: another
-- instance is about to bring it.
-- KEYS[1]  the site's meta hash
-- ARGV     the number of the last entry that is known
-- Answers  the new one's number, or 0
local held, counted = unpack(redis.call('HMGET', KEYS[1], 'entry', 'entry_ms'))
held = held or '0'
if held == '' or string.find(held, '%D') then return held end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local age = now - (tonumber(counted or '') or 0)
if held + 0 > ARGV[1] + 0 and age >= 0 and age < 2000 then return '0' end
local number = string.format('%.0f', math.max(held + 0, ARGV[1] + 0) + 1)
redis.call('HSET', KEYS[1], 'entry', number, 'entry_ms', string.format('%.0f', now))
return number
