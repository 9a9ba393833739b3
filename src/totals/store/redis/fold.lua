#!lua
-- Makes fields of hashes part of the sum of (other).
-- KEYS     the hashes; then those of days
-- ARGV     how many the former are; the views in the first of them below which a page may go ('' for whatever it is),
--          who is on one of the days or has an entry beside those views stays; the fields
-- Answers  how many there were, hash by hash
local hashes, below, fields = ARGV[1] + 0, ARGV[2], {unpack(ARGV, 3)}
local function keep(which, is_kept)
  local kept = {}
  for i, found in ipairs(which) do
    if is_kept(found) then kept[#kept + 1] = fields[i] end
  end
  fields = kept
end
local function held(key) return #fields > 0 and redis.call('HMGET', key, unpack(fields)) or {} end
local function is_sum(text) return text and text ~= '' and not string.find(text, '%D') end

if below ~= '' then
  for i = hashes + 1, #KEYS do keep(held(KEYS[i]), function(found) return not found end) end
  keep(held(KEYS[1]), function(views) return is_sum(views) and views + 0 < below + 0 end)
  local beside = {}
  for i, page in ipairs(fields) do beside[i] = '+' .. page end
  if #fields > 0 then keep(redis.call('HMGET', KEYS[1], unpack(beside)), function(entry) return not entry end) end
end

-- All is read and checked before the first write: a script is not undone when it fails half way.
local gone, sums, count = {}, {}, 0
for k = 1, hashes do
  gone[k] = {}
  for i, value in ipairs(held(KEYS[k])) do
    if value then gone[k][#gone[k] + 1] = fields[i] end
    if is_sum(value) then
      sums[k] = (sums[k] or 0) + value
    elseif value and below ~= '' then
      return redis.error_reply('FOOTFALL a sum of ' .. KEYS[k] .. ' is not a plain number')
    end
  end
  local other = sums[k] and redis.call('HGET', KEYS[k], '(other)') or '0'
  if not is_sum(other) then
    return redis.error_reply('FOOTFALL the sum of (other) of ' .. KEYS[k] .. ' is not a plain number')
  end
  sums[k] = sums[k] and string.format('%.0f', math.min(other + sums[k], 9007199254740991))
end
for k = 1, hashes do
  if #gone[k] > 0 then redis.call('HDEL', KEYS[k], unpack(gone[k])) end
  if sums[k] then
    redis.call('HSET', KEYS[k], '(other)', sums[k])
    redis.call('HINCRBY', KEYS[k], '#revision', 1)
  end
  count = count + #gone[k]
end
return count
