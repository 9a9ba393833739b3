#!lua
-- Registers a writer with a site's data, which is born if there is none.
-- KEYS[1]  the site's meta hash
-- ARGV     the format, the data set that is expected ('' for any), the id of one that is born, the civil day,
--          the zone ('' to leave it), the writer,
--          then the runs of the writer's directory, oldest first: run, last batch frozen before the next run
-- Answers  the data set, the first day ever attached, 'born' or 'ours'; or 'other' (it is not the one expected)
--          or 'twin' (the writer is borne by a process that is no run of this directory) or 'retired': nothing was
--          written;
--          then the day before which pages are pruned ('' for none);
--          then up to which batch this directory's and the bearer's are the same, or the last batch of the writer
--          that is retired ('' if that is not known)
local key, format, expected, birth, today, zone, writer = KEYS[1], unpack(ARGV, 1, 6)
local own, runs_field = 'run:' .. writer, 'runs:' .. writer

local held, dataset, since, bearer, runs, pruned =
  unpack(redis.call('HMGET', key, 'format', 'dataset', 'since', own, runs_field, 'pruned'))
pruned = pruned or ''
if held and held ~= format then
  return redis.error_reply('FOOTFALL the data of this site is of format ' .. held ..
    ', this version of footfall reads format ' .. format)
end
if expected ~= '' and dataset ~= expected then
  return {dataset or '', since or today, 'other', pruned, ''}
end
-- Days as YYYY-MM-DD: compared as numbers, since the order of strings depends on the server's locale.
local function number(day)
  local y, m, d = string.match(day, '^(%d%d%d%d)%-(%d%d)%-(%d%d)$')
  local days = ({31, (y or 0) % 4 == 0 and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31})[tonumber(m)]
  return days and d + 0 >= 1 and d + 0 <= days and tonumber(y .. m .. d) or nil
end
if since and not number(since) then
  return redis.error_reply('FOOTFALL the first day of this site, since, is ' .. since)
end
if not since or (number(today) or math.huge) < number(since) then since = today end

local run, fork, lineage = ARGV[#ARGV - 1], '', ''
if bearer == 'retired' then
  return {dataset or '', since, 'retired', pruned, string.match(runs or '', 'retired=(%d+)') or ''}
end
if #ARGV > 6 and bearer ~= run then
  for i = 7, #ARGV - 2, 2 do
    if ARGV[i] == bearer then fork = ARGV[i + 1] end
  end
  if bearer and fork == '' then
    -- Which of our runs does the bearer descend from, and where did its directory part from ours?
    for i = #ARGV - 1, 7, -2 do
      fork = string.match(runs or '', ARGV[i] .. '=(%d+)') or ''
      if fork ~= '' then
        -- Where our run ended sooner than theirs, what came after is not the same.
        if tonumber(ARGV[i + 1] or '') and tonumber(ARGV[i + 1]) < tonumber(fork) then fork = ARGV[i + 1] end
        break
      end
    end
    return {dataset or '', since, 'twin', pruned, fork}
  end
  -- The bearer's own, for those that come after; the last sixteen do.
  for i = math.max(7, #ARGV - 31), #ARGV - 1, 2 do
    lineage = lineage .. ARGV[i] .. '=' .. ARGV[i + 1] .. ' '
  end
end

local writes = {'format', format, 'dataset', dataset or birth, 'since', since, 'writer:' .. writer,
  redis.call('TIME')[1]}
local function write(field, value)
  writes[#writes + 1] = field
  writes[#writes + 1] = value
end
if zone ~= '' then write('zone', zone) end
if #ARGV > 6 then write(own, run) end
if lineage ~= '' then write(runs_field, lineage) end
redis.call('HSET', key, unpack(writes))
return {dataset or birth, since, dataset and 'ours' or 'born', pruned, fork}
