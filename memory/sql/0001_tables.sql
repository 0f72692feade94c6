CREATE TABLE allowed_transition (
  from_state VARCHAR(20) NOT NULL,
  to_state VARCHAR(20) NOT NULL,
  PRIMARY KEY (from_state, to_state)
)

CREATE TABLE artifact (
  id VARCHAR(80) NOT NULL,
  media_type TEXT NOT NULL,
  n_bytes INTEGER NOT NULL,
  content BLOB NOT NULL,
  PRIMARY KEY (id)
)

CREATE TABLE corpus (
  id VARCHAR(80) NOT NULL,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  n_characters INTEGER NOT NULL,
  PRIMARY KEY (id)
)

CREATE TABLE ledger (
  seq INTEGER NOT NULL,
  table_name VARCHAR(40) NOT NULL,
  row_id TEXT NOT NULL,
  row_sha256 TEXT NOT NULL,
  prev_sha256 TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  PRIMARY KEY (seq)
)

CREATE TABLE review (
  id VARCHAR(80) NOT NULL,
  target_table TEXT NOT NULL,
  target_id TEXT NOT NULL,
  author TEXT NOT NULL,
  verb TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (id),
  CHECK (verb in ('agree','dispute','invalidate','comment'))
)

CREATE TABLE schema_migration (
  number INTEGER NOT NULL,
  name TEXT NOT NULL,
  source_sha256 TEXT NOT NULL,
  applied TEXT NOT NULL,
  PRIMARY KEY (number)
)

CREATE TABLE target_model (
  id VARCHAR(80) NOT NULL,
  name TEXT NOT NULL,
  weights_sha256 TEXT NOT NULL,
  tokenizer_sha256 TEXT NOT NULL,
  dtype TEXT NOT NULL,
  backend TEXT NOT NULL,
  backend_version TEXT NOT NULL,
  processing TEXT NOT NULL,
  PRIMARY KEY (id)
)

CREATE TABLE run (
  id VARCHAR(80) NOT NULL,
  question TEXT NOT NULL,
  target VARCHAR(80) NOT NULL,
  corpus VARCHAR(80) NOT NULL,
  parent_run VARCHAR(80),
  code_version TEXT NOT NULL,
  code_commit TEXT,
  packages TEXT NOT NULL,
  config TEXT NOT NULL,
  seed INTEGER NOT NULL,
  started TEXT NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(target) REFERENCES target_model (id),
  FOREIGN KEY(corpus) REFERENCES corpus (id),
  FOREIGN KEY(parent_run) REFERENCES run (id)
)

CREATE TABLE unit (
  id VARCHAR(80) NOT NULL,
  target VARCHAR(80) NOT NULL,
  kind TEXT NOT NULL,
  layer INTEGER NOT NULL,
  "index" INTEGER NOT NULL,
  sign INTEGER NOT NULL,
  address TEXT NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (target, address),
  CHECK (sign in (1, -1)),
  FOREIGN KEY(target) REFERENCES target_model (id)
)

CREATE TABLE block_opened (
  id VARCHAR(80) NOT NULL,
  run VARCHAR(80) NOT NULL,
  unit VARCHAR(80) NOT NULL,
  side TEXT NOT NULL,
  corpus VARCHAR(80) NOT NULL,
  block INTEGER NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (unit, side, corpus, block),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(unit) REFERENCES unit (id),
  FOREIGN KEY(corpus) REFERENCES corpus (id)
)

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
  PRIMARY KEY (id),
  UNIQUE (run, unit, side, predicate, author),
  CHECK (side in ('reads','writes')),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(unit) REFERENCES unit (id),
  FOREIGN KEY(parent) REFERENCES hypothesis (id)
)

CREATE INDEX hypothesis_by_run ON hypothesis (run)

CREATE INDEX hypothesis_by_unit ON hypothesis (unit)

CREATE TABLE llm_call (
  id VARCHAR(80) NOT NULL,
  run VARCHAR(80) NOT NULL,
  purpose TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  request TEXT NOT NULL,
  request_sha256 TEXT NOT NULL,
  maybe_billed_twice VARCHAR(80),
  PRIMARY KEY (id),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(maybe_billed_twice) REFERENCES llm_call (id)
)

CREATE INDEX llm_call_by_request_sha256 ON llm_call (request_sha256)

CREATE INDEX llm_call_by_run ON llm_call (run)

CREATE TABLE outcome (
  id VARCHAR(80) NOT NULL,
  run VARCHAR(80) NOT NULL,
  unit VARCHAR(80) NOT NULL,
  side TEXT NOT NULL,
  status TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(unit) REFERENCES unit (id)
)

CREATE INDEX outcome_by_run ON outcome (run)

CREATE TABLE run_end (
  id VARCHAR(80) NOT NULL,
  run VARCHAR(80) NOT NULL,
  outcome TEXT NOT NULL,
  reason TEXT NOT NULL,
  cost TEXT NOT NULL,
  ended TEXT NOT NULL,
  PRIMARY KEY (id),
  CHECK (outcome in ('answered','gave_up','out_of_budget','cancelled','error')),
  FOREIGN KEY(run) REFERENCES run (id)
)

CREATE INDEX run_end_by_run ON run_end (run)

CREATE TABLE llm_call_end (
  id VARCHAR(80) NOT NULL,
  call VARCHAR(80) NOT NULL,
  answered_by TEXT,
  response TEXT,
  stop_reason TEXT,
  tokens_in INTEGER,
  tokens_cached INTEGER,
  tokens_out INTEGER,
  usd_micro INTEGER,
  seconds FLOAT NOT NULL,
  error TEXT,
  PRIMARY KEY (id),
  CHECK ((response is null) <> (error is null)),
  UNIQUE (call),
  FOREIGN KEY(call) REFERENCES llm_call (id)
)

CREATE TABLE prediction (
  id VARCHAR(80) NOT NULL,
  hypothesis VARCHAR(80) NOT NULL,
  metric TEXT NOT NULL,
  comparator TEXT NOT NULL,
  threshold FLOAT NOT NULL,
  baseline TEXT NOT NULL,
  split TEXT NOT NULL,
  payload TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(hypothesis) REFERENCES hypothesis (id)
)

CREATE INDEX prediction_by_hypothesis ON prediction (hypothesis)

CREATE TABLE experiment (
  id VARCHAR(80) NOT NULL,
  run VARCHAR(80) NOT NULL,
  prediction VARCHAR(80),
  tool TEXT NOT NULL,
  tool_sha256 TEXT NOT NULL,
  args TEXT NOT NULL,
  corpus VARCHAR(80),
  seed INTEGER NOT NULL,
  "key" TEXT NOT NULL,
  repeat_of VARCHAR(80),
  started TEXT NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(prediction) REFERENCES prediction (id),
  FOREIGN KEY(corpus) REFERENCES corpus (id),
  FOREIGN KEY(repeat_of) REFERENCES experiment (id)
)

CREATE INDEX experiment_by_key ON experiment ("key")

CREATE INDEX experiment_by_run ON experiment (run)

CREATE TABLE verdict (
  id VARCHAR(80) NOT NULL,
  prediction VARCHAR(80) NOT NULL,
  outcome TEXT NOT NULL,
  rule_version TEXT NOT NULL,
  reason TEXT NOT NULL,
  e FLOAT NOT NULL,
  "case" TEXT NOT NULL,
  PRIMARY KEY (id),
  CHECK (outcome in ('SUPPORTED','PARTIAL','REFUTED','UNRESOLVED')),
  FOREIGN KEY(prediction) REFERENCES prediction (id)
)

CREATE INDEX verdict_by_prediction ON verdict (prediction)

CREATE TABLE evidence (
  id VARCHAR(80) NOT NULL,
  experiment VARCHAR(80) NOT NULL,
  subject TEXT NOT NULL,
  metric TEXT NOT NULL,
  value FLOAT NOT NULL,
  unit_of_measure TEXT NOT NULL,
  n INTEGER NOT NULL,
  ci_low FLOAT,
  ci_high FLOAT,
  null_value FLOAT,
  null_percentile FLOAT,
  PRIMARY KEY (id),
  CHECK ((ci_low is null) = (ci_high is null)),
  CHECK (ci_low is null or ci_low <= ci_high),
  FOREIGN KEY(experiment) REFERENCES experiment (id)
)

CREATE INDEX evidence_by_experiment ON evidence (experiment)

CREATE TABLE experiment_end (
  id VARCHAR(80) NOT NULL,
  experiment VARCHAR(80) NOT NULL,
  outcome TEXT NOT NULL,
  error TEXT,
  result VARCHAR(80),
  seconds FLOAT NOT NULL,
  forwards FLOAT NOT NULL,
  PRIMARY KEY (id),
  CHECK (outcome in ('ok','refused','failed')),
  CHECK ((outcome = 'ok') = (result is not null)),
  CHECK ((outcome = 'ok') = (error is null)),
  UNIQUE (experiment),
  FOREIGN KEY(experiment) REFERENCES experiment (id),
  FOREIGN KEY(result) REFERENCES artifact (id)
)

CREATE TABLE hypothesis_status (
  hypothesis VARCHAR(80) NOT NULL,
  seq INTEGER NOT NULL,
  prev_seq INTEGER,
  from_state VARCHAR(20),
  to_state VARCHAR(20) NOT NULL,
  verdict VARCHAR(80),
  reason TEXT NOT NULL,
  PRIMARY KEY (hypothesis, seq),
  UNIQUE (hypothesis, seq, to_state),
  FOREIGN KEY(from_state, to_state) REFERENCES allowed_transition (from_state, to_state),
  FOREIGN KEY(hypothesis, prev_seq, from_state) REFERENCES hypothesis_status (hypothesis, seq, to_state),
  CHECK ((seq = 0) = (prev_seq is null)),
  CHECK ((seq = 0) = (from_state is null)),
  CHECK (seq = 0 or seq = prev_seq + 1),
  CHECK (seq > 0 or to_state = 'proposed'),
  CHECK (to_state not in ('supported','partial','refuted') or verdict is not null),
  FOREIGN KEY(hypothesis) REFERENCES hypothesis (id),
  FOREIGN KEY(verdict) REFERENCES verdict (id)
)

CREATE TABLE verdict_evidence (
  verdict VARCHAR(80) NOT NULL,
  evidence VARCHAR(80) NOT NULL,
  PRIMARY KEY (verdict, evidence),
  FOREIGN KEY(verdict) REFERENCES verdict (id),
  FOREIGN KEY(evidence) REFERENCES evidence (id)
)

CREATE TRIGGER allowed_transition_no_update BEFORE UPDATE ON allowed_transition BEGIN SELECT RAISE(ABORT, 'allowed_transition rows are only added'); END

CREATE TRIGGER allowed_transition_no_delete BEFORE DELETE ON allowed_transition BEGIN SELECT RAISE(ABORT, 'allowed_transition rows are only added'); END

CREATE TRIGGER allowed_transition_no_replace BEFORE INSERT ON allowed_transition WHEN EXISTS (SELECT 1 FROM allowed_transition WHERE "from_state" = NEW."from_state" AND "to_state" = NEW."to_state") BEGIN SELECT RAISE(ABORT, 'allowed_transition rows are only added'); END

CREATE TRIGGER artifact_no_update BEFORE UPDATE ON artifact BEGIN SELECT RAISE(ABORT, 'artifact rows are only added'); END

CREATE TRIGGER artifact_no_delete BEFORE DELETE ON artifact BEGIN SELECT RAISE(ABORT, 'artifact rows are only added'); END

CREATE TRIGGER artifact_no_replace BEFORE INSERT ON artifact WHEN EXISTS (SELECT 1 FROM artifact WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'artifact rows are only added'); END

CREATE TRIGGER corpus_no_update BEFORE UPDATE ON corpus BEGIN SELECT RAISE(ABORT, 'corpus rows are only added'); END

CREATE TRIGGER corpus_no_delete BEFORE DELETE ON corpus BEGIN SELECT RAISE(ABORT, 'corpus rows are only added'); END

CREATE TRIGGER corpus_no_replace BEFORE INSERT ON corpus WHEN EXISTS (SELECT 1 FROM corpus WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'corpus rows are only added'); END

CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'ledger rows are only added'); END

CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'ledger rows are only added'); END

CREATE TRIGGER ledger_no_replace BEFORE INSERT ON ledger WHEN EXISTS (SELECT 1 FROM ledger WHERE "seq" = NEW."seq") BEGIN SELECT RAISE(ABORT, 'ledger rows are only added'); END

CREATE TRIGGER review_no_update BEFORE UPDATE ON review BEGIN SELECT RAISE(ABORT, 'review rows are only added'); END

CREATE TRIGGER review_no_delete BEFORE DELETE ON review BEGIN SELECT RAISE(ABORT, 'review rows are only added'); END

CREATE TRIGGER review_no_replace BEFORE INSERT ON review WHEN EXISTS (SELECT 1 FROM review WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'review rows are only added'); END

CREATE TRIGGER schema_migration_no_update BEFORE UPDATE ON schema_migration BEGIN SELECT RAISE(ABORT, 'schema_migration rows are only added'); END

CREATE TRIGGER schema_migration_no_delete BEFORE DELETE ON schema_migration BEGIN SELECT RAISE(ABORT, 'schema_migration rows are only added'); END

CREATE TRIGGER schema_migration_no_replace BEFORE INSERT ON schema_migration WHEN EXISTS (SELECT 1 FROM schema_migration WHERE "number" = NEW."number") BEGIN SELECT RAISE(ABORT, 'schema_migration rows are only added'); END

CREATE TRIGGER target_model_no_update BEFORE UPDATE ON target_model BEGIN SELECT RAISE(ABORT, 'target_model rows are only added'); END

CREATE TRIGGER target_model_no_delete BEFORE DELETE ON target_model BEGIN SELECT RAISE(ABORT, 'target_model rows are only added'); END

CREATE TRIGGER target_model_no_replace BEFORE INSERT ON target_model WHEN EXISTS (SELECT 1 FROM target_model WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'target_model rows are only added'); END

CREATE TRIGGER run_no_update BEFORE UPDATE ON run BEGIN SELECT RAISE(ABORT, 'run rows are only added'); END

CREATE TRIGGER run_no_delete BEFORE DELETE ON run BEGIN SELECT RAISE(ABORT, 'run rows are only added'); END

CREATE TRIGGER run_no_replace BEFORE INSERT ON run WHEN EXISTS (SELECT 1 FROM run WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'run rows are only added'); END

CREATE TRIGGER unit_no_update BEFORE UPDATE ON unit BEGIN SELECT RAISE(ABORT, 'unit rows are only added'); END

CREATE TRIGGER unit_no_delete BEFORE DELETE ON unit BEGIN SELECT RAISE(ABORT, 'unit rows are only added'); END

CREATE TRIGGER unit_no_replace BEFORE INSERT ON unit WHEN EXISTS (SELECT 1 FROM unit WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'unit rows are only added'); END

CREATE TRIGGER block_opened_no_update BEFORE UPDATE ON block_opened BEGIN SELECT RAISE(ABORT, 'block_opened rows are only added'); END

CREATE TRIGGER block_opened_no_delete BEFORE DELETE ON block_opened BEGIN SELECT RAISE(ABORT, 'block_opened rows are only added'); END

CREATE TRIGGER block_opened_no_replace BEFORE INSERT ON block_opened WHEN EXISTS (SELECT 1 FROM block_opened WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'block_opened rows are only added'); END

CREATE TRIGGER hypothesis_no_update BEFORE UPDATE ON hypothesis BEGIN SELECT RAISE(ABORT, 'hypothesis rows are only added'); END

CREATE TRIGGER hypothesis_no_delete BEFORE DELETE ON hypothesis BEGIN SELECT RAISE(ABORT, 'hypothesis rows are only added'); END

CREATE TRIGGER hypothesis_no_replace BEFORE INSERT ON hypothesis WHEN EXISTS (SELECT 1 FROM hypothesis WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'hypothesis rows are only added'); END

CREATE TRIGGER llm_call_no_update BEFORE UPDATE ON llm_call BEGIN SELECT RAISE(ABORT, 'llm_call rows are only added'); END

CREATE TRIGGER llm_call_no_delete BEFORE DELETE ON llm_call BEGIN SELECT RAISE(ABORT, 'llm_call rows are only added'); END

CREATE TRIGGER llm_call_no_replace BEFORE INSERT ON llm_call WHEN EXISTS (SELECT 1 FROM llm_call WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'llm_call rows are only added'); END

CREATE TRIGGER outcome_no_update BEFORE UPDATE ON outcome BEGIN SELECT RAISE(ABORT, 'outcome rows are only added'); END

CREATE TRIGGER outcome_no_delete BEFORE DELETE ON outcome BEGIN SELECT RAISE(ABORT, 'outcome rows are only added'); END

CREATE TRIGGER outcome_no_replace BEFORE INSERT ON outcome WHEN EXISTS (SELECT 1 FROM outcome WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'outcome rows are only added'); END

CREATE TRIGGER run_end_no_update BEFORE UPDATE ON run_end BEGIN SELECT RAISE(ABORT, 'run_end rows are only added'); END

CREATE TRIGGER run_end_no_delete BEFORE DELETE ON run_end BEGIN SELECT RAISE(ABORT, 'run_end rows are only added'); END

CREATE TRIGGER run_end_no_replace BEFORE INSERT ON run_end WHEN EXISTS (SELECT 1 FROM run_end WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'run_end rows are only added'); END

CREATE TRIGGER llm_call_end_no_update BEFORE UPDATE ON llm_call_end BEGIN SELECT RAISE(ABORT, 'llm_call_end rows are only added'); END

CREATE TRIGGER llm_call_end_no_delete BEFORE DELETE ON llm_call_end BEGIN SELECT RAISE(ABORT, 'llm_call_end rows are only added'); END

CREATE TRIGGER llm_call_end_no_replace BEFORE INSERT ON llm_call_end WHEN EXISTS (SELECT 1 FROM llm_call_end WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'llm_call_end rows are only added'); END

CREATE TRIGGER prediction_no_update BEFORE UPDATE ON prediction BEGIN SELECT RAISE(ABORT, 'prediction rows are only added'); END

CREATE TRIGGER prediction_no_delete BEFORE DELETE ON prediction BEGIN SELECT RAISE(ABORT, 'prediction rows are only added'); END

CREATE TRIGGER prediction_no_replace BEFORE INSERT ON prediction WHEN EXISTS (SELECT 1 FROM prediction WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'prediction rows are only added'); END

CREATE TRIGGER experiment_no_update BEFORE UPDATE ON experiment BEGIN SELECT RAISE(ABORT, 'experiment rows are only added'); END

CREATE TRIGGER experiment_no_delete BEFORE DELETE ON experiment BEGIN SELECT RAISE(ABORT, 'experiment rows are only added'); END

CREATE TRIGGER experiment_no_replace BEFORE INSERT ON experiment WHEN EXISTS (SELECT 1 FROM experiment WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'experiment rows are only added'); END

CREATE TRIGGER verdict_no_update BEFORE UPDATE ON verdict BEGIN SELECT RAISE(ABORT, 'verdict rows are only added'); END

CREATE TRIGGER verdict_no_delete BEFORE DELETE ON verdict BEGIN SELECT RAISE(ABORT, 'verdict rows are only added'); END

CREATE TRIGGER verdict_no_replace BEFORE INSERT ON verdict WHEN EXISTS (SELECT 1 FROM verdict WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'verdict rows are only added'); END

CREATE TRIGGER evidence_no_update BEFORE UPDATE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence rows are only added'); END

CREATE TRIGGER evidence_no_delete BEFORE DELETE ON evidence BEGIN SELECT RAISE(ABORT, 'evidence rows are only added'); END

CREATE TRIGGER evidence_no_replace BEFORE INSERT ON evidence WHEN EXISTS (SELECT 1 FROM evidence WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'evidence rows are only added'); END

CREATE TRIGGER experiment_end_no_update BEFORE UPDATE ON experiment_end BEGIN SELECT RAISE(ABORT, 'experiment_end rows are only added'); END

CREATE TRIGGER experiment_end_no_delete BEFORE DELETE ON experiment_end BEGIN SELECT RAISE(ABORT, 'experiment_end rows are only added'); END

CREATE TRIGGER experiment_end_no_replace BEFORE INSERT ON experiment_end WHEN EXISTS (SELECT 1 FROM experiment_end WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'experiment_end rows are only added'); END

CREATE TRIGGER hypothesis_status_no_update BEFORE UPDATE ON hypothesis_status BEGIN SELECT RAISE(ABORT, 'hypothesis_status rows are only added'); END

CREATE TRIGGER hypothesis_status_no_delete BEFORE DELETE ON hypothesis_status BEGIN SELECT RAISE(ABORT, 'hypothesis_status rows are only added'); END

CREATE TRIGGER hypothesis_status_no_replace BEFORE INSERT ON hypothesis_status WHEN EXISTS (SELECT 1 FROM hypothesis_status WHERE "hypothesis" = NEW."hypothesis" AND "seq" = NEW."seq") BEGIN SELECT RAISE(ABORT, 'hypothesis_status rows are only added'); END

CREATE TRIGGER verdict_evidence_no_update BEFORE UPDATE ON verdict_evidence BEGIN SELECT RAISE(ABORT, 'verdict_evidence rows are only added'); END

CREATE TRIGGER verdict_evidence_no_delete BEFORE DELETE ON verdict_evidence BEGIN SELECT RAISE(ABORT, 'verdict_evidence rows are only added'); END

CREATE TRIGGER verdict_evidence_no_replace BEFORE INSERT ON verdict_evidence WHEN EXISTS (SELECT 1 FROM verdict_evidence WHERE "verdict" = NEW."verdict" AND "evidence" = NEW."evidence") BEGIN SELECT RAISE(ABORT, 'verdict_evidence rows are only added'); END

INSERT INTO allowed_transition VALUES ('proposed', 'registered')

INSERT INTO allowed_transition VALUES ('proposed', 'withdrawn')

INSERT INTO allowed_transition VALUES ('proposed', 'untestable')

INSERT INTO allowed_transition VALUES ('registered', 'testing')

INSERT INTO allowed_transition VALUES ('registered', 'withdrawn')

INSERT INTO allowed_transition VALUES ('registered', 'untestable')

INSERT INTO allowed_transition VALUES ('testing', 'supported')

INSERT INTO allowed_transition VALUES ('testing', 'partial')

INSERT INTO allowed_transition VALUES ('testing', 'refuted')

INSERT INTO allowed_transition VALUES ('testing', 'unresolved')

INSERT INTO allowed_transition VALUES ('supported', 'stale')

INSERT INTO allowed_transition VALUES ('partial', 'stale')

INSERT INTO allowed_transition VALUES ('refuted', 'stale')

INSERT INTO allowed_transition VALUES ('unresolved', 'stale')

INSERT INTO allowed_transition VALUES ('stale', 'testing')

INSERT INTO allowed_transition VALUES ('proposed', 'superseded')

INSERT INTO allowed_transition VALUES ('registered', 'superseded')

INSERT INTO allowed_transition VALUES ('testing', 'superseded')

INSERT INTO allowed_transition VALUES ('supported', 'superseded')

INSERT INTO allowed_transition VALUES ('partial', 'superseded')

INSERT INTO allowed_transition VALUES ('refuted', 'superseded')

INSERT INTO allowed_transition VALUES ('unresolved', 'superseded')

INSERT INTO allowed_transition VALUES ('stale', 'superseded')
