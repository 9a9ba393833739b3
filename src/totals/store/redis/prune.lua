#!lua
-- Removes pages of days, and notes before which day they are removed.
-- KEYS[1]  the site's meta hash
-- KEYS[2…] their hashes
-- ARGV     the data set ('' for any), the day that must be noted ('' for none), the day that is noted afterwards
-- Answers  the day that is noted ('' for none): another one where somebody else was here
--          DETACHED if the data set is another one
local meta, dataset, prev, pruned = KEYS[1], unpack(ARGV)
local held = redis.call('HMGET', meta, 'dataset', 'pruned')
if dataset ~= '' and held[1] ~= dataset then return redis.error_reply('DETACHED the data set has changed') end
if (held[2] or '') ~= prev then return held[2] or '' end
redis.call('HSET', meta, 'pruned', pruned)
if #KEYS > 1 then redis.call('UNLINK', unpack(KEYS, 2)) end
return pruned
