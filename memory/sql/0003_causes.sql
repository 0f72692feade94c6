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
  PRIMARY KEY (id),
  UNIQUE (run, unit, side, predicate, author),
  CHECK (side in ('reads','writes','attends','role','circuit')),
  FOREIGN KEY(run) REFERENCES run (id),
  FOREIGN KEY(unit) REFERENCES unit (id),
  FOREIGN KEY(parent) REFERENCES hypothesis (id)
)

INSERT INTO hypothesis SELECT * FROM hypothesis_kept

DROP TABLE hypothesis_kept

CREATE INDEX hypothesis_by_run ON hypothesis (run)

CREATE INDEX hypothesis_by_unit ON hypothesis (unit)

CREATE TRIGGER hypothesis_no_update BEFORE UPDATE ON hypothesis BEGIN SELECT RAISE(ABORT, 'hypothesis rows are only added'); END

CREATE TRIGGER hypothesis_no_delete BEFORE DELETE ON hypothesis BEGIN SELECT RAISE(ABORT, 'hypothesis rows are only added'); END

CREATE TRIGGER hypothesis_no_replace BEFORE INSERT ON hypothesis WHEN EXISTS (SELECT 1 FROM hypothesis WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'hypothesis rows are only added'); END
