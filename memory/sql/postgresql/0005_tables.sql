CREATE TABLE allowed_transition (
  from_state VARCHAR(20) COLLATE "C" NOT NULL,
  to_state VARCHAR(20) COLLATE "C" NOT NULL,
  PRIMARY KEY (from_state, to_state)
)

CREATE TABLE artifact (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  media_type TEXT COLLATE "C" NOT NULL,
  n_bytes BIGINT NOT NULL,
  content BYTEA NOT NULL,
  PRIMARY KEY (id)
)

CREATE TABLE corpus (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  sha256 TEXT COLLATE "C" NOT NULL,
  n_characters BIGINT NOT NULL,
  PRIMARY KEY (id)
)

CREATE TABLE dictionary (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  sha256 TEXT COLLATE "C" NOT NULL,
  architecture TEXT COLLATE "C" NOT NULL,
  site TEXT COLLATE "C" NOT NULL,
  layer BIGINT NOT NULL,
  width BIGINT NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (name, sha256)
)

CREATE TABLE evaluation (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  suite TEXT COLLATE "C" NOT NULL,
  seed BIGINT NOT NULL,
  proposer TEXT COLLATE "C" NOT NULL,
  loop TEXT COLLATE "C" NOT NULL,
  code_sha256 TEXT COLLATE "C" NOT NULL,
  settings TEXT COLLATE "C" NOT NULL,
  started TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id)
)

CREATE TABLE ledger (
  seq BIGINT NOT NULL,
  table_name VARCHAR(40) COLLATE "C" NOT NULL,
  row_id TEXT COLLATE "C" NOT NULL,
  row_sha256 TEXT COLLATE "C" NOT NULL,
  prev_sha256 TEXT COLLATE "C" NOT NULL,
  sha256 TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (seq)
)

CREATE TABLE review (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  target_table TEXT COLLATE "C" NOT NULL,
  target_id TEXT COLLATE "C" NOT NULL,
  author TEXT COLLATE "C" NOT NULL,
  verb TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  CHECK (verb in ('agree','dispute','invalidate','comment'))
)

CREATE TABLE schema_migration (
  number BIGINT NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  source_sha256 TEXT COLLATE "C" NOT NULL,
  applied TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (number)
)

CREATE TABLE target_model (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  weights_sha256 TEXT COLLATE "C" NOT NULL,
  tokenizer_sha256 TEXT COLLATE "C" NOT NULL,
  dtype TEXT COLLATE "C" NOT NULL,
  backend TEXT COLLATE "C" NOT NULL,
  backend_version TEXT COLLATE "C" NOT NULL,
  processing TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id)
)

CREATE TABLE evaluation_row (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  evaluation VARCHAR(80) COLLATE "C" NOT NULL,
  "case" TEXT COLLATE "C" NOT NULL,
  family TEXT COLLATE "C" NOT NULL,
  outcome TEXT COLLATE "C" NOT NULL,
  row TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (evaluation, "case"),
  CHECK (outcome in ('ok','failed','not attempted')),
  FOREIGN KEY(evaluation) REFERENCES evaluation (id)
)

CREATE TABLE run (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  question TEXT COLLATE "C" NOT NULL,
  target VARCHAR(80) COLLATE "C" NOT NULL,
  corpus VARCHAR(80) COLLATE "C" NOT NULL,
  parent_run VARCHAR(80) COLLATE "C",
  code_version TEXT COLLATE "C" NOT NULL,
  code_commit TEXT COLLATE "C",
  packages TEXT COLLATE "C" NOT NULL,
  config TEXT COLLATE "C" NOT NULL,
  seed BIGINT NOT NULL,
  started TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(target) REFERENCES target_model (id),
  FOREIGN KEY(corpus) REFERENCES corpus (id),
  FOREIGN KEY(parent_run) REFERENCES run (id)
)

CREATE TABLE unit (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  target VARCHAR(80) COLLATE "C" NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  layer BIGINT NOT NULL,
  index BIGINT NOT NULL,
  sign BIGINT NOT NULL,
  address TEXT COLLATE "C" NOT NULL,
  dictionary VARCHAR(80) COLLATE "C",
  PRIMARY KEY (id),
  UNIQUE (target, address),
  CHECK (sign in (1, -1)),
  CHECK ((kind = 'feature') = (dictionary is not null)),
  FOREIGN KEY(target) REFERENCES target_model (id),
  FOREIGN KEY(dictionary) REFERENCES dictionary (id)
)

CREATE TABLE batch (
  run VARCHAR(80) COLLATE "C" NOT NULL,
  wanted TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (run),
  CHECK (wanted in ('go','pause','stop')),
  FOREIGN KEY(run) REFERENCES run (id)
)

CREATE TABLE block_opened (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  run VARCHAR(80) COLLATE "C" NOT NULL,
  unit VARCHAR(80) COLLATE "C" NOT NULL,
  side TEXT COLLATE "C" NOT NULL,
  corpus VARCHAR(80) COLLATE "C" NOT NULL,
  block BIGINT NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (unit, side, corpus, block),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(unit) REFERENCES unit (id),
  FOREIGN KEY(corpus) REFERENCES corpus (id)
)

CREATE TABLE hypothesis (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  run VARCHAR(80) COLLATE "C" NOT NULL,
  unit VARCHAR(80) COLLATE "C" NOT NULL,
  parent VARCHAR(80) COLLATE "C",
  side TEXT COLLATE "C" NOT NULL,
  claim TEXT COLLATE "C" NOT NULL,
  predicate TEXT COLLATE "C" NOT NULL,
  complexity BIGINT NOT NULL,
  author TEXT COLLATE "C" NOT NULL,
  words TEXT COLLATE "C",
  PRIMARY KEY (id),
  CHECK (side in ('reads','writes','attends','role','circuit')),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(unit) REFERENCES unit (id),
  FOREIGN KEY(parent) REFERENCES hypothesis (id)
)

CREATE INDEX hypothesis_by_run ON hypothesis (run)

CREATE INDEX hypothesis_by_unit ON hypothesis (unit)

CREATE UNIQUE INDEX hypothesis_once ON hypothesis (run, unit, side, md5(predicate), md5(author))

CREATE TABLE item (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  run VARCHAR(80) COLLATE "C" NOT NULL,
  rank BIGINT NOT NULL,
  address TEXT COLLATE "C" NOT NULL,
  null_kind TEXT COLLATE "C",
  beside TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL,
  attempt BIGINT NOT NULL,
  steps BIGINT NOT NULL,
  owner TEXT COLLATE "C",
  lease_until FLOAT,
  asked VARCHAR(80) COLLATE "C",
  reason TEXT COLLATE "C",
  PRIMARY KEY (id),
  UNIQUE (run, rank),
  CHECK (state in ('waiting','leased','done','failed','skipped')),
  CHECK ((state = 'leased') = (owner is not null)),
  CHECK ((state = 'leased') = (lease_until is not null)),
  CHECK (state <> 'done' or asked is not null),
  CHECK ((state in ('failed','skipped')) = (reason is not null)),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(asked) REFERENCES run (id)
)

CREATE INDEX item_by_asked ON item (asked)

CREATE INDEX item_by_beside ON item (run, state, beside, rank)

CREATE INDEX item_by_rank ON item (run, state, rank)

CREATE TABLE llm_batch (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  run VARCHAR(80) COLLATE "C" NOT NULL,
  provider TEXT COLLATE "C" NOT NULL,
  model TEXT COLLATE "C" NOT NULL,
  source TEXT COLLATE "C" NOT NULL,
  created TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(run) REFERENCES run (id)
)

CREATE INDEX llm_batch_by_run ON llm_batch (run)

CREATE TABLE outcome (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  run VARCHAR(80) COLLATE "C" NOT NULL,
  unit VARCHAR(80) COLLATE "C" NOT NULL,
  side TEXT COLLATE "C" NOT NULL,
  status TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(unit) REFERENCES unit (id)
)

CREATE INDEX outcome_by_run ON outcome (run)

CREATE TABLE run_end (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  run VARCHAR(80) COLLATE "C" NOT NULL,
  outcome TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  cost TEXT COLLATE "C" NOT NULL,
  ended TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  CHECK (outcome in ('answered','gave_up','out_of_budget','cancelled','error')),
  FOREIGN KEY(run) REFERENCES run (id)
)

CREATE INDEX run_end_by_run ON run_end (run)

CREATE TABLE llm_batch_end (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  batch VARCHAR(80) COLLATE "C" NOT NULL,
  outcome TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  ended TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  CHECK (outcome in ('ended','failed','expired','cancelled','not sent')),
  UNIQUE (batch),
  FOREIGN KEY(batch) REFERENCES llm_batch (id)
)

CREATE TABLE llm_batch_sent (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  batch VARCHAR(80) COLLATE "C" NOT NULL,
  remote TEXT COLLATE "C" NOT NULL,
  sent TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (batch),
  FOREIGN KEY(batch) REFERENCES llm_batch (id)
)

CREATE TABLE llm_call (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  run VARCHAR(80) COLLATE "C" NOT NULL,
  purpose TEXT COLLATE "C" NOT NULL,
  provider TEXT COLLATE "C" NOT NULL,
  model TEXT COLLATE "C" NOT NULL,
  request TEXT COLLATE "C" NOT NULL,
  request_sha256 TEXT COLLATE "C" NOT NULL,
  maybe_billed_twice VARCHAR(80) COLLATE "C",
  batch VARCHAR(80) COLLATE "C",
  about TEXT COLLATE "C",
  PRIMARY KEY (id),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(maybe_billed_twice) REFERENCES llm_call (id),
  FOREIGN KEY(batch) REFERENCES llm_batch (id)
)

CREATE INDEX llm_call_by_batch ON llm_call (batch)

CREATE INDEX llm_call_by_request_sha256 ON llm_call (request_sha256)

CREATE INDEX llm_call_by_run ON llm_call (run)

CREATE TABLE prediction (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  hypothesis VARCHAR(80) COLLATE "C" NOT NULL,
  metric TEXT COLLATE "C" NOT NULL,
  comparator TEXT COLLATE "C" NOT NULL,
  threshold FLOAT NOT NULL,
  baseline TEXT COLLATE "C" NOT NULL,
  split TEXT COLLATE "C" NOT NULL,
  payload TEXT COLLATE "C" NOT NULL,
  sha256 TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(hypothesis) REFERENCES hypothesis (id)
)

CREATE INDEX prediction_by_hypothesis ON prediction (hypothesis)

CREATE TABLE experiment (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  run VARCHAR(80) COLLATE "C" NOT NULL,
  prediction VARCHAR(80) COLLATE "C",
  tool TEXT COLLATE "C" NOT NULL,
  tool_sha256 TEXT COLLATE "C" NOT NULL,
  args TEXT COLLATE "C" NOT NULL,
  corpus VARCHAR(80) COLLATE "C",
  seed BIGINT NOT NULL,
  key TEXT COLLATE "C" NOT NULL,
  repeat_of VARCHAR(80) COLLATE "C",
  started TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(prediction) REFERENCES prediction (id),
  FOREIGN KEY(corpus) REFERENCES corpus (id),
  FOREIGN KEY(repeat_of) REFERENCES experiment (id)
)

CREATE INDEX experiment_by_key ON experiment (key)

CREATE INDEX experiment_by_run ON experiment (run)

CREATE TABLE llm_call_end (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  call VARCHAR(80) COLLATE "C" NOT NULL,
  answered_by TEXT COLLATE "C",
  response TEXT COLLATE "C",
  stop_reason TEXT COLLATE "C",
  tokens_in BIGINT,
  tokens_cached BIGINT,
  tokens_written BIGINT,
  tokens_out BIGINT,
  usd_micro BIGINT,
  seconds FLOAT NOT NULL,
  error TEXT COLLATE "C",
  calls TEXT COLLATE "C",
  PRIMARY KEY (id),
  CHECK ((response is null) <> (error is null)),
  CHECK (calls is null or response is not null),
  UNIQUE (call),
  FOREIGN KEY(call) REFERENCES llm_call (id)
)

CREATE TABLE verdict (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  prediction VARCHAR(80) COLLATE "C" NOT NULL,
  outcome TEXT COLLATE "C" NOT NULL,
  rule_version TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  e FLOAT NOT NULL,
  "case" TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (id),
  CHECK (outcome in ('SUPPORTED','PARTIAL','REFUTED','UNRESOLVED')),
  FOREIGN KEY(prediction) REFERENCES prediction (id)
)

CREATE INDEX verdict_by_prediction ON verdict (prediction)

CREATE TABLE evidence (
  id VARCHAR(80) COLLATE "C" NOT NULL,
  experiment VARCHAR(80) COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  metric TEXT COLLATE "C" NOT NULL,
  value FLOAT NOT NULL,
  unit_of_measure TEXT COLLATE "C" NOT NULL,
  n BIGINT NOT NULL,
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
  id VARCHAR(80) COLLATE "C" NOT NULL,
  experiment VARCHAR(80) COLLATE "C" NOT NULL,
  outcome TEXT COLLATE "C" NOT NULL,
  error TEXT COLLATE "C",
  result VARCHAR(80) COLLATE "C",
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
  hypothesis VARCHAR(80) COLLATE "C" NOT NULL,
  seq BIGINT NOT NULL,
  prev_seq BIGINT,
  from_state VARCHAR(20) COLLATE "C",
  to_state VARCHAR(20) COLLATE "C" NOT NULL,
  verdict VARCHAR(80) COLLATE "C",
  reason TEXT COLLATE "C" NOT NULL,
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
  verdict VARCHAR(80) COLLATE "C" NOT NULL,
  evidence VARCHAR(80) COLLATE "C" NOT NULL,
  PRIMARY KEY (verdict, evidence),
  FOREIGN KEY(verdict) REFERENCES verdict (id),
  FOREIGN KEY(evidence) REFERENCES evidence (id)
)

CREATE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  RAISE integrity_constraint_violation USING MESSAGE = TG_TABLE_NAME || ' rows are only added';
END$$

CREATE TRIGGER allowed_transition_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON allowed_transition FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE allowed_transition ENABLE ALWAYS TRIGGER allowed_transition_only_added

CREATE TRIGGER artifact_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON artifact FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE artifact ENABLE ALWAYS TRIGGER artifact_only_added

CREATE TRIGGER corpus_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON corpus FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE corpus ENABLE ALWAYS TRIGGER corpus_only_added

CREATE TRIGGER dictionary_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON dictionary FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE dictionary ENABLE ALWAYS TRIGGER dictionary_only_added

CREATE TRIGGER evaluation_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON evaluation FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE evaluation ENABLE ALWAYS TRIGGER evaluation_only_added

CREATE TRIGGER ledger_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_only_added

CREATE TRIGGER review_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON review FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE review ENABLE ALWAYS TRIGGER review_only_added

CREATE TRIGGER schema_migration_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON schema_migration FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE schema_migration ENABLE ALWAYS TRIGGER schema_migration_only_added

CREATE TRIGGER target_model_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON target_model FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE target_model ENABLE ALWAYS TRIGGER target_model_only_added

CREATE TRIGGER evaluation_row_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON evaluation_row FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE evaluation_row ENABLE ALWAYS TRIGGER evaluation_row_only_added

CREATE TRIGGER run_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON run FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE run ENABLE ALWAYS TRIGGER run_only_added

CREATE TRIGGER unit_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON unit FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE unit ENABLE ALWAYS TRIGGER unit_only_added

CREATE TRIGGER block_opened_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON block_opened FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE block_opened ENABLE ALWAYS TRIGGER block_opened_only_added

CREATE TRIGGER hypothesis_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON hypothesis FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE hypothesis ENABLE ALWAYS TRIGGER hypothesis_only_added

CREATE TRIGGER llm_batch_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON llm_batch FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE llm_batch ENABLE ALWAYS TRIGGER llm_batch_only_added

CREATE TRIGGER outcome_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON outcome FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE outcome ENABLE ALWAYS TRIGGER outcome_only_added

CREATE TRIGGER run_end_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON run_end FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE run_end ENABLE ALWAYS TRIGGER run_end_only_added

CREATE TRIGGER llm_batch_end_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON llm_batch_end FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE llm_batch_end ENABLE ALWAYS TRIGGER llm_batch_end_only_added

CREATE TRIGGER llm_batch_sent_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON llm_batch_sent FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE llm_batch_sent ENABLE ALWAYS TRIGGER llm_batch_sent_only_added

CREATE TRIGGER llm_call_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON llm_call FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE llm_call ENABLE ALWAYS TRIGGER llm_call_only_added

CREATE TRIGGER prediction_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON prediction FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE prediction ENABLE ALWAYS TRIGGER prediction_only_added

CREATE TRIGGER experiment_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON experiment FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE experiment ENABLE ALWAYS TRIGGER experiment_only_added

CREATE TRIGGER llm_call_end_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON llm_call_end FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE llm_call_end ENABLE ALWAYS TRIGGER llm_call_end_only_added

CREATE TRIGGER verdict_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON verdict FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE verdict ENABLE ALWAYS TRIGGER verdict_only_added

CREATE TRIGGER evidence_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON evidence FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE evidence ENABLE ALWAYS TRIGGER evidence_only_added

CREATE TRIGGER experiment_end_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON experiment_end FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE experiment_end ENABLE ALWAYS TRIGGER experiment_end_only_added

CREATE TRIGGER hypothesis_status_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON hypothesis_status FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE hypothesis_status ENABLE ALWAYS TRIGGER hypothesis_status_only_added

CREATE TRIGGER verdict_evidence_only_added BEFORE DELETE OR UPDATE OR TRUNCATE ON verdict_evidence FOR EACH STATEMENT EXECUTE FUNCTION only_added()

ALTER TABLE verdict_evidence ENABLE ALWAYS TRIGGER verdict_evidence_only_added

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
