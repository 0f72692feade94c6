PRAGMA defer_foreign_keys = ON

CREATE TABLE dictionary (
  id VARCHAR(80) NOT NULL,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  architecture TEXT NOT NULL,
  site TEXT NOT NULL,
  layer INTEGER NOT NULL,
  width INTEGER NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (name, sha256)
)

CREATE TRIGGER dictionary_no_update BEFORE UPDATE ON dictionary BEGIN SELECT RAISE(ABORT, 'dictionary rows are only added'); END

CREATE TRIGGER dictionary_no_delete BEFORE DELETE ON dictionary BEGIN SELECT RAISE(ABORT, 'dictionary rows are only added'); END

CREATE TRIGGER dictionary_no_replace BEFORE INSERT ON dictionary WHEN EXISTS (SELECT 1 FROM dictionary WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'dictionary rows are only added'); END

CREATE TABLE unit_kept AS SELECT * FROM unit

DROP TABLE unit

CREATE TABLE unit (
  id VARCHAR(80) NOT NULL,
  target VARCHAR(80) NOT NULL,
  kind TEXT NOT NULL,
  layer INTEGER NOT NULL,
  "index" INTEGER NOT NULL,
  sign INTEGER NOT NULL,
  address TEXT NOT NULL,
  dictionary VARCHAR(80),
  PRIMARY KEY (id),
  UNIQUE (target, address),
  CHECK (sign in (1, -1)),
  CHECK ((kind = 'feature') = (dictionary is not null)),
  FOREIGN KEY(target) REFERENCES target_model (id),
  FOREIGN KEY(dictionary) REFERENCES dictionary (id)
)

INSERT INTO unit (id, target, kind, layer, "index", sign, address) SELECT id, target, kind, layer, "index", sign, address FROM unit_kept ORDER BY id

DROP TABLE unit_kept

CREATE TRIGGER unit_no_update BEFORE UPDATE ON unit BEGIN SELECT RAISE(ABORT, 'unit rows are only added'); END

CREATE TRIGGER unit_no_delete BEFORE DELETE ON unit BEGIN SELECT RAISE(ABORT, 'unit rows are only added'); END

CREATE TRIGGER unit_no_replace BEFORE INSERT ON unit WHEN EXISTS (SELECT 1 FROM unit WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'unit rows are only added'); END

CREATE TABLE batch (
  run VARCHAR(80) NOT NULL,
  wanted TEXT NOT NULL,
  PRIMARY KEY (run),
  CHECK (wanted in ('go','pause','stop')),
  FOREIGN KEY(run) REFERENCES run (id)
)

CREATE TABLE item (
  id VARCHAR(80) NOT NULL,
  run VARCHAR(80) NOT NULL,
  rank INTEGER NOT NULL,
  address TEXT NOT NULL,
  null_kind TEXT,
  beside TEXT NOT NULL,
  state TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  steps INTEGER NOT NULL,
  owner TEXT,
  lease_until FLOAT,
  asked VARCHAR(80),
  reason TEXT,
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
