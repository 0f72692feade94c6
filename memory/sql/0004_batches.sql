PRAGMA defer_foreign_keys = ON

CREATE TABLE hypothesis_kept AS SELECT * FROM hypothesis

DROP TABLE hypothesis

CREATE TABLE hypothesis (
  id VARCHAR(80) NOT NULL,
  run VARCHAR(80) NOT NULL,
  unit VARCHAR(80) NOT NULL,
  parent VARCHAR(80),
  side TEXT NOT NULL,
  claim TEXT NOT NULL,
  predicate TEXT NOT NULL,
  complexity INTEGER NOT NULL,
  author TEXT NOT NULL,
  words TEXT,
  PRIMARY KEY (id),
  UNIQUE (run, unit, side, predicate, author),
  CHECK (side in ('reads','writes','attends','role','circuit')),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(unit) REFERENCES unit (id),
  FOREIGN KEY(parent) REFERENCES hypothesis (id)
)

INSERT INTO hypothesis (id, run, unit, parent, side, claim, predicate, complexity, author) SELECT id, run, unit, parent, side, claim, predicate, complexity, author FROM hypothesis_kept ORDER BY id

DROP TABLE hypothesis_kept

CREATE INDEX hypothesis_by_run ON hypothesis (run)

CREATE INDEX hypothesis_by_unit ON hypothesis (unit)

CREATE TRIGGER hypothesis_no_update BEFORE UPDATE ON hypothesis BEGIN SELECT RAISE(ABORT, 'hypothesis rows are only added'); END

CREATE TRIGGER hypothesis_no_delete BEFORE DELETE ON hypothesis BEGIN SELECT RAISE(ABORT, 'hypothesis rows are only added'); END

CREATE TRIGGER hypothesis_no_replace BEFORE INSERT ON hypothesis WHEN EXISTS (SELECT 1 FROM hypothesis WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'hypothesis rows are only added'); END

CREATE TABLE llm_batch (
  id VARCHAR(80) NOT NULL,
  run VARCHAR(80) NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  source TEXT NOT NULL,
  created TEXT NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(run) REFERENCES run (id)
)

CREATE INDEX llm_batch_by_run ON llm_batch (run)

CREATE TRIGGER llm_batch_no_update BEFORE UPDATE ON llm_batch BEGIN SELECT RAISE(ABORT, 'llm_batch rows are only added'); END

CREATE TRIGGER llm_batch_no_delete BEFORE DELETE ON llm_batch BEGIN SELECT RAISE(ABORT, 'llm_batch rows are only added'); END

CREATE TRIGGER llm_batch_no_replace BEFORE INSERT ON llm_batch WHEN EXISTS (SELECT 1 FROM llm_batch WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'llm_batch rows are only added'); END

CREATE TABLE llm_batch_end (
  id VARCHAR(80) NOT NULL,
  batch VARCHAR(80) NOT NULL,
  outcome TEXT NOT NULL,
  reason TEXT NOT NULL,
  ended TEXT NOT NULL,
  PRIMARY KEY (id),
  CHECK (outcome in ('ended','failed','expired','cancelled','not sent')),
  UNIQUE (batch),
  FOREIGN KEY(batch) REFERENCES llm_batch (id)
)

CREATE TRIGGER llm_batch_end_no_update BEFORE UPDATE ON llm_batch_end BEGIN SELECT RAISE(ABORT, 'llm_batch_end rows are only added'); END

CREATE TRIGGER llm_batch_end_no_delete BEFORE DELETE ON llm_batch_end BEGIN SELECT RAISE(ABORT, 'llm_batch_end rows are only added'); END

CREATE TRIGGER llm_batch_end_no_replace BEFORE INSERT ON llm_batch_end WHEN EXISTS (SELECT 1 FROM llm_batch_end WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'llm_batch_end rows are only added'); END

CREATE TABLE llm_batch_sent (
  id VARCHAR(80) NOT NULL,
  batch VARCHAR(80) NOT NULL,
  remote TEXT NOT NULL,
  sent TEXT NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (batch),
  FOREIGN KEY(batch) REFERENCES llm_batch (id)
)

CREATE TRIGGER llm_batch_sent_no_update BEFORE UPDATE ON llm_batch_sent BEGIN SELECT RAISE(ABORT, 'llm_batch_sent rows are only added'); END

CREATE TRIGGER llm_batch_sent_no_delete BEFORE DELETE ON llm_batch_sent BEGIN SELECT RAISE(ABORT, 'llm_batch_sent rows are only added'); END

CREATE TRIGGER llm_batch_sent_no_replace BEFORE INSERT ON llm_batch_sent WHEN EXISTS (SELECT 1 FROM llm_batch_sent WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'llm_batch_sent rows are only added'); END

CREATE TABLE llm_call_kept AS SELECT * FROM llm_call

DROP TABLE llm_call

CREATE TABLE llm_call (
  id VARCHAR(80) NOT NULL,
  run VARCHAR(80) NOT NULL,
  purpose TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  request TEXT NOT NULL,
  request_sha256 TEXT NOT NULL,
  maybe_billed_twice VARCHAR(80),
  batch VARCHAR(80),
  about TEXT,
  PRIMARY KEY (id),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(maybe_billed_twice) REFERENCES llm_call (id),
  FOREIGN KEY(batch) REFERENCES llm_batch (id)
)

INSERT INTO llm_call (id, run, purpose, provider, model, request, request_sha256, maybe_billed_twice) SELECT id, run, purpose, provider, model, request, request_sha256, maybe_billed_twice FROM llm_call_kept ORDER BY id

DROP TABLE llm_call_kept

CREATE INDEX llm_call_by_batch ON llm_call (batch)

CREATE INDEX llm_call_by_request_sha256 ON llm_call (request_sha256)

CREATE INDEX llm_call_by_run ON llm_call (run)

CREATE TRIGGER llm_call_no_update BEFORE UPDATE ON llm_call BEGIN SELECT RAISE(ABORT, 'llm_call rows are only added'); END

CREATE TRIGGER llm_call_no_delete BEFORE DELETE ON llm_call BEGIN SELECT RAISE(ABORT, 'llm_call rows are only added'); END

CREATE TRIGGER llm_call_no_replace BEFORE INSERT ON llm_call WHEN EXISTS (SELECT 1 FROM llm_call WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'llm_call rows are only added'); END

CREATE TABLE llm_call_end_kept AS SELECT * FROM llm_call_end

DROP TABLE llm_call_end

CREATE TABLE llm_call_end (
  id VARCHAR(80) NOT NULL,
  call VARCHAR(80) NOT NULL,
  answered_by TEXT,
  response TEXT,
  stop_reason TEXT,
  tokens_in INTEGER,
  tokens_cached INTEGER,
  tokens_written INTEGER,
  tokens_out INTEGER,
  usd_micro INTEGER,
  seconds FLOAT NOT NULL,
  error TEXT,
  calls TEXT,
  PRIMARY KEY (id),
  CHECK ((response is null) <> (error is null)),
  CHECK (calls is null or response is not null),
  UNIQUE (call),
  FOREIGN KEY(call) REFERENCES llm_call (id)
)

INSERT INTO llm_call_end (id, call, answered_by, response, stop_reason, tokens_in, tokens_cached, tokens_out, usd_micro, seconds, error) SELECT id, call, answered_by, response, stop_reason, tokens_in, tokens_cached, tokens_out, usd_micro, seconds, error FROM llm_call_end_kept ORDER BY id

DROP TABLE llm_call_end_kept

CREATE TRIGGER llm_call_end_no_update BEFORE UPDATE ON llm_call_end BEGIN SELECT RAISE(ABORT, 'llm_call_end rows are only added'); END

CREATE TRIGGER llm_call_end_no_delete BEFORE DELETE ON llm_call_end BEGIN SELECT RAISE(ABORT, 'llm_call_end rows are only added'); END

CREATE TRIGGER llm_call_end_no_replace BEFORE INSERT ON llm_call_end WHEN EXISTS (SELECT 1 FROM llm_call_end WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'llm_call_end rows are only added'); END
