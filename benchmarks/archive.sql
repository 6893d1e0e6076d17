-- :more studies that are over and done with, as a site has them after some years: images, a reading with its draft, a report
-- (one in ten by hand, since the machine abstained; all but one in 2,000 signed), events and seals. Ids are of their time, as
-- ours are. The seals' hashes are not real: `verify` is not what is measured here.
ALTER TABLE events DISABLE TRIGGER queue_for_seal;
CREATE TEMP TABLE made AS
  SELECT n, uuidv7(ago) AS study, uuidv7(ago) AS series, uuidv7(ago) AS instance, uuidv7(ago) AS revision, uuidv7(ago) AS reading,
         uuidv7(ago) AS draft, uuidv7(ago) AS report, uuidv7(ago) AS patient, now() + ago AS at, ago,
         n % 2000 > 0 AS signed, n % 10 = 3 AS by_hand, (SELECT id FROM sites LIMIT 1) AS site
  FROM generate_series(1, :more) n, make_interval(secs => (n - :more) * 300) ago;
INSERT INTO patients (id, site_id, patient_id) SELECT patient, site, 'A' || :tag || n FROM made;
INSERT INTO studies (id, site_id, patient_id_key, study_instance_uid, state, revision, modality, instances, patient_id, patient_name,
                     patient_sex, accession_number, study_date, first_image_at, last_image_at, receiving_since, created_at, updated_at, settled_at)
  SELECT study, site, patient, '2.25.' || (90000000 + n)::text || :tag, 'ready', 1, 'CR', 2, 'A' || :tag || n,
         'FAMILY' || n % 7919 || '^GIVEN' || n % 911, 'O', 'ACC' || n, to_char(at, 'YYYYMMDD'), at, at, at, at, at,
         CASE WHEN signed THEN at END FROM made;
INSERT INTO series (id, study_id, series_instance_uid, modality) SELECT series, study, '2.25.7' || n || :tag, 'CR' FROM made;
INSERT INTO instances (id, study_id, series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, kind, header, sha256,
                       size_bytes, source, received_at, created_at)
  SELECT instance, study, series, '2.25.8' || n || :tag, '1.2.840.10008.5.1.4.1.1.1', '1.2.840.10008.1.2.1', 'image',
         (SELECT header FROM instances LIMIT 1), md5(instance::text) || md5(study::text), 500000, 'dicom', at, at FROM made;
INSERT INTO study_revisions (id, study_id, number, images, images_sha256, evidence_kind, evidence, created_at)
  SELECT revision, study, 1, 1, md5(study::text), 'quiet', '{}', at FROM made;
INSERT INTO revision_instances (revision_id, instance_id) SELECT revision, instance FROM made;
INSERT INTO readings (id, site_id, study_id, revision_id, purpose, state, lane, lane_order, rank, token, protocol, protocol_version,
                      protocol_digest, model, omitted, created_at, prepared_at, ended_at, updated_at)
  SELECT reading, site, study, revision, 'primary', CASE WHEN by_hand THEN 'abstained' ELSE 'done' END, 'routine', 1, n, 2, 'phantom-chest', '1', repeat('d', 64), 'phantom',
         '[]', at, at, at, at FROM made;
INSERT INTO reading_pictures (id, reading_id, position, instance_id, frame, sha256, height, width, rendering)
  SELECT gen_random_uuid(), reading, 0, instance, 0, md5(instance::text) || md5(reading::text), 192, 192, '{}' FROM made;
INSERT INTO drafts (id, reading_id, study_id, body, body_sha256, provenance, created_at)
  SELECT draft, reading, study, d.body, d.body_sha256, d.provenance, at FROM made, (SELECT * FROM drafts LIMIT 1) d WHERE NOT by_hand;
INSERT INTO draft_steps (id, draft_id, position, prompt, prompt_sha256, completion, completion_sha256, parameters, finish, tokens, timing, created_at)
  SELECT gen_random_uuid(), draft, 0, s.prompt, s.prompt_sha256, s.completion, s.completion_sha256, s.parameters, s.finish, s.tokens,
         s.timing, at FROM made, (SELECT * FROM draft_steps LIMIT 1) s WHERE NOT by_hand;
INSERT INTO reports (id, site_id, study_id, study_revision, draft_id, state, revision, signed_revision, touched_at, created_at, updated_at)
  SELECT report, site, study, 1, CASE WHEN NOT by_hand THEN draft END, CASE WHEN signed THEN 'final' ELSE 'draft' END, 1, CASE WHEN signed THEN 1 END,
         CASE WHEN signed THEN at END, at, at FROM made;
INSERT INTO report_revisions (id, report_id, number, kind, body, body_sha256, created_at)
  SELECT gen_random_uuid(), report, 1, 'draft', d.body, d.body_sha256, at FROM made, (SELECT * FROM drafts LIMIT 1) d;
INSERT INTO signatures (id, report_id, report_revision, study_revision, body_sha256, user_id, printed_name, role, meaning, method,
                        proven_at, client_address, reasons, signed_at)
  SELECT gen_random_uuid(), report, 1, 1, repeat('0', 64), (SELECT id FROM users LIMIT 1), 'Bench', 'attending', 'authorship',
         'password', at, '127.0.0.1', '{}', at FROM made WHERE signed;
CREATE TEMP TABLE told AS
  SELECT uuidv7(ago) AS id, at, study, site, kind, row_number() OVER (ORDER BY n) AS nth FROM made,
         unnest(ARRAY['instance_admitted', 'study_closed', 'reading_prepared', 'reading_done', 'study_opened', 'report_signed']) kind;
INSERT INTO events (id, at, kind, site_id, actor_kind, study_id, facts) SELECT id, at, kind, site, 'system', study, '{}' FROM told;
INSERT INTO seals (position, event_id, hash)
  SELECT (SELECT coalesce(max(position), 0) FROM seals) + nth, id, md5(id::text) || md5(nth::text) FROM told;
ALTER TABLE events ENABLE TRIGGER queue_for_seal;
DROP TABLE made; DROP TABLE told;
