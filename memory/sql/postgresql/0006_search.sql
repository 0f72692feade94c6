CREATE INDEX review_by_target_id ON review (target_id)

CREATE INDEX run_by_parent_run ON run (parent_run)

CREATE INDEX unit_by_address ON unit (address)

CREATE INDEX outcome_by_unit ON outcome (unit)

CREATE INDEX experiment_by_prediction ON experiment (prediction)

CREATE INDEX experiment_by_repeat_of ON experiment (repeat_of)

CREATE INDEX experiment_end_by_result ON experiment_end (result)

CREATE INDEX verdict_evidence_by_evidence ON verdict_evidence (evidence)

CREATE TABLE claim_index (
  n BIGINT NOT NULL,
  hypothesis VARCHAR(80) COLLATE "C" NOT NULL,
  words TEXT COLLATE "C" NOT NULL,
  found TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple'::regconfig, words)) STORED,
  PRIMARY KEY (n),
  UNIQUE (hypothesis)
)

CREATE TABLE claim_count (
  facets TEXT COLLATE "C" NOT NULL,
  n BIGINT NOT NULL,
  PRIMARY KEY (facets)
)

CREATE INDEX claim_index_by_words ON claim_index USING gin (found)
