//go:build mutants

package drill

// mutant is a seeded bug, which would break a promise: edits of the sources, and a test that has to notice. It is data: none of
// them is in the program.
type mutant struct {
	id, what string
	edits    []edit
	pkg      string // of the test
	test     string // its name, or a pattern for some
}

// edit replaces text that stands in a file exactly once.
type edit struct{ file, old, new string }

func storeMutants() []mutant {
	const dir = "internal/postgres"
	return []mutant{
		{"M01", "202 is answered before the commit", []edit{{
			dir + "/accept_commit.go", "\tswitch err = commit(end, tx, latest); {\n",
			"\tif true {\n\t\tgo func() { _ = commit(end, tx, latest) }()\n\t\treturn won, false, nil\n\t}\n\tswitch err = commit(end, tx, latest); {\n",
		}}, dir, "TestAnswerToCommitThatCannotBeFoundOutIsUnknown|TestServerRefusesToCommitTooLate"},
		{"M02", "the intent is not written", []edit{{
			dir + "/intent.go", "\treturn db.intents.do(ctx, ownedIntent{in, owner}, int64(max(1, len(in.Open))))\n", "\treturn queue.Announced{OK: true}, nil\n",
		}}, dir, "TestIntendAnnouncesOneCallOnce"},
		{"M03", "a result closes a claim whoever holds it", []edit{{
			dir + "/record.go", "f.id = i.id AND f.n = i.n AND f.owner = i.owner AND (", "f.id = i.id AND (",
		}}, dir, "TestResultOf"},
		{"M04", "a rescue takes started calls for unstarted", []edit{
			{dir + "/replica.go", "n - 1, tries, avoid FROM d WHERE started_at IS NULL", "n - 1, tries, avoid FROM d"},
			{dir + "/replica.go", "m WHERE d.started_at IS NOT NULL", "m WHERE false"},
		}, dir, "TestRescueReturnsWhatTheDeadHeld"},
		{"M05", "on_ambiguous never is sent again", []edit{{
			dir + "/unknown.go", "policy = 'resend' OR policy", "policy <> 'reconcile' OR policy",
		}}, dir, "TestUnknownMessagesAreDecidedByTheirPolicy"},
		{"M06", "a limit is full again after a restart", []edit{{
			dir + "/limits.go", "\t\tif !acc.Changed {\n", "\t\tif acc != nil {\n",
		}}, dir, "TestReplicasTogetherNeverExceedALimit|TestCallOfADeadReplicaStaysCharged|TestSlotsAreSharedByReplicasAndOutliveThem"},
		{"M08", "the last event wins, whatever it says", []edit{{
			dir + "/apply.go", "  AND (i.rank, i.at, i.key) > (r.event_rank,", "  AND true OR (i.rank, i.at, i.key) > (r.event_rank,",
		}}, dir, "TestEventsMoveRecipientsToTheirFate|TestEachEventIsTakenOnce|TestRecordDoesNotOverwriteWhatAnEventSaid"},
		{"M09", "an event is known by the provider's id alone", []edit{{
			dir + "/intake.go", "if !isNew[f.byID] || !isNew[f.byContent] {", "if !isNew[f.byID] {",
		}}, dir, "TestEachEventIsTakenOnce"},
		{"M10", "an idempotency key is looked up before it is written", []edit{
			{dir + "/accept.go", "id FROM i WHERE key <> '' ORDER BY", "id FROM i WHERE key <> '' AND NOT EXISTS (SELECT FROM idempotency x WHERE x.tenant_id = i.tenant_id AND x.key = i.key) ORDER BY"},
			{dir + "/accept.go", "    ON CONFLICT DO NOTHING\n    RETURNING message_id\n", "    RETURNING message_id\n"},
		}, dir, "TestKeyThatIsTakenMeanwhileIsReplayed"},
		{"M13", "one bad row fails its whole batch", []edit{{
			dir + "/committer.go", "\tif len(batch) == 1 || !rowFault(err) {\n", "\tif err != nil {\n",
		}}, dir, "TestBisectFailsOnlyTheCulprits|TestPoisonedMessageFailsAlone"},
		{"M14", "a claim takes more than its quota", []edit{{dir + "/claim.go", "    LIMIT p.quota\n", ""}}, dir, "TestClaimKeepsToQuotasAndOrder"},
		{"M16", "a claim does not look at suppressions", []edit{{
			dir + "/claim.go", "CASE WHEN r.status = 'queued' AND ` + suppressedSQL", "CASE WHEN false AND ` + suppressedSQL",
		}}, dir, "TestSuppressionBindsAtTheClaim|TestLoadGivesMessagesAndRecipientsAsTheyAreNow"},
	}
}

func otherMutants() []mutant {
	return []mutant{
		{"M07", "a call is made although its turn came too late", []edit{{
			"internal/deliver/carry.go", "time.Since(it.announced) > turnAge", "time.Since(it.announced) < 0",
		}}, "internal/deliver", "TestCallWhoseTurnComesLongAfterItsIntentIsNotMade"},
		{"M11", "SIGTERM cuts calls off", []edit{{
			"internal/deliver/deliver.go", "\t<-ctx.Done()\n\tdone := make(chan struct{})\n", "\t<-ctx.Done()\n\te.cut()\n\tdone := make(chan struct{})\n",
		}}, "internal/app", "TestStopFinishesCallsAndLeavesNoGoroutine"},
		{"M12", "an unknown call goes to another account", []edit{{
			"internal/deliver/next.go", "\t\tunknown(&r, c, failure)\n\t\tr.Unknown =", "\t\tagain(&r, c, 0, failure, now)\n\t\t_ =",
		}}, "internal/deliver", "TestUncertainIsNeverRequeued"},
		{"M15", "the SDK of SES tries again by itself", []edit{{
			"internal/provider/ses/send.go", "Retryer:     aws.NopRetryer{},", "RetryMaxAttempts: 3,",
		}}, "internal/provider/ses", "TestConformance"},
		{"M17", "a cursor opens another tenant's page", []edit{{
			"internal/httpapi/cursor.go", "l.name, strconv.Itoa(int(l.tenant)), l.filter", "l.name, l.filter",
		}}, "internal/httpapi", "TestCursorIsBoundToTenantListingAndFilter"},
		{"M18", "a lone CR goes out as it came in", []edit{{
			"internal/provider/mime/part.go", `strings.IndexAny(s, "\r\n")`, `strings.IndexByte(s, '\n')`,
		}}, "internal/provider/mime", "TestBuildNormalisesLineEnds"},
	}
}
