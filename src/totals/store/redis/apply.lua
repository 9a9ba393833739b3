#!lua
-- Adds frozen sums to a hash, once.
-- KEYS[1]  the hash
-- KEYS[2]  the site's meta hash
-- ARGV     the marker's field, the marker it must bear ('' for none), the marker it bears afterwards,
--          the data set ('' for any), the run that bears the writer ('' for any),
--          what the revision becomes at least ('' to leave it),
--          then field, addition, field, addition, ...
-- Answers  1 applied, 0 already applied, or the marker found ('' for none): nothing was written.
--          DETACHED if the data set is another one, or another process bears the writer.
local key, field, prev, marker, dataset, run, revision = KEYS[1], unpack(ARGV, 1, 6)

local meta = redis.call('HMGET', KEYS[2], 'dataset', 'run:' .. string.sub(field, 2))
if (dataset ~= '' and meta[1] ~= dataset) or (run ~= '' and meta[2] ~= run) then
  return redis.error_reply('DETACHED the data set or the bearer of the writer has changed')
end
local found = redis.call('HGET', key, field) or ''
if found == marker then return 0 end
if found ~= prev then return found end

-- All is read and checked before the one write: a script is not undone when it fails half way.
local argv, find, format = ARGV, string.find, string.format
local count = (#argv - 6) / 2
local names = {}
for i = 1, count do names[i] = argv[5 + 2 * i] end
local held = count > 0 and redis.call('HMGET', key, unpack(names)) or {}

local writes = {field, marker}
for i = 1, count do
  local old = held[i] or '0'
  if old == '' or find(old, '%D') then
    return redis.error_reply('FOOTFALL the sum of ' .. names[i] .. ' is not a plain number')
  end
  local sum = old + argv[6 + 2 * i]
  if sum > 9007199254740991 then
    return redis.error_reply('FOOTFALL the sum of ' .. names[i] .. ' would pass 2^53')
  end
  writes[1 + 2 * i] = names[i]
  writes[2 + 2 * i] = format('%.0f', sum)
end

if revision ~= '' then
  local old = redis.call('HGET', key, '#revision') or '0'
  if old == '' or find(old, '%D') then
    return redis.error_reply('FOOTFALL the sum of #revision is not a plain number')
  end
  writes[#writes + 1] = '#revision'
  writes[#writes + 1] = format('%.0f', math.min(math.max(old + 1, revision), 9007199254740991))
end

-- One command: Redis then wraps nothing in MULTI, and a torn append file loses it as a whole. It writes
-- sums, not additions, so replaying it is harmless.
redis.call('HSET', key, unpack(writes))
return 1
