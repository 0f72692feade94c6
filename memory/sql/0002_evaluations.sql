CREATE TABLE evaluation (
  id VARCHAR(80) NOT NULL,
  suite TEXT NOT NULL,
  seed INTEGER NOT NULL,
  proposer TEXT NOT NULL,
  loop TEXT NOT NULL,
  code_sha256 TEXT NOT NULL,
  settings TEXT NOT NULL,
  started TEXT NOT NULL,
  PRIMARY KEY (id)
)

CREATE TABLE evaluation_row (
  id VARCHAR(80) NOT NULL,
  evaluation VARCHAR(80) NOT NULL,
  "case" TEXT NOT NULL,
  family TEXT NOT NULL,
  outcome TEXT NOT NULL,
  "row" TEXT NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (evaluation, "case"),
  CHECK (outcome in ('ok','failed','not attempted')),
  FOREIGN KEY(evaluation) REFERENCES evaluation (id)
)

CREATE TRIGGER evaluation_no_update BEFORE UPDATE ON evaluation BEGIN SELECT RAISE(ABORT, 'evaluation rows are only added'); END

CREATE TRIGGER evaluation_no_delete BEFORE DELETE ON evaluation BEGIN SELECT RAISE(ABORT, 'evaluation rows are only added'); END

CREATE TRIGGER evaluation_no_replace BEFORE INSERT ON evaluation WHEN EXISTS (SELECT 1 FROM evaluation WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'evaluation rows are only added'); END

CREATE TRIGGER evaluation_row_no_update BEFORE UPDATE ON evaluation_row BEGIN SELECT RAISE(ABORT, 'evaluation_row rows are only added'); END

CREATE TRIGGER evaluation_row_no_delete BEFORE DELETE ON evaluation_row BEGIN SELECT RAISE(ABORT, 'evaluation_row rows are only added'); END

CREATE TRIGGER evaluation_row_no_replace BEFORE INSERT ON evaluation_row WHEN EXISTS (SELECT 1 FROM evaluation_row WHERE "id" = NEW."id") BEGIN SELECT RAISE(ABORT, 'evaluation_row rows are only added'); END
