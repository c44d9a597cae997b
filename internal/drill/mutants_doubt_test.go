//go:build mutants

package drill

// doubtMutants are bugs in the handling of calls whose outcome is unknown, late or postponed.
func doubtMutants() []mutant {
	const store, engine = "internal/postgres", "internal/deliver"
	return []mutant{
		{"M31", "a refusal by another account is forgotten at the next requeue", []edit{{
			engine + "/next.go", "\t\tif name != c.name {\n", "\t\tif name == c.name {\n",
		}}, engine, "TestWhatOtherAccountsSaidIsKeptWhateverComesNext"},
		{"M32", "throttled calls that were under way together count one by one", []edit{{
			engine + "/account.go", "\tcase !began.After(a.counted):\n", "\tcase false:\n",
		}}, engine, "TestThrottledCallsThatWereUnderWayTogetherCountOnce"},
		{"M33", "a call that was rescued and answered late is charged twice", []edit{
			{store + "/record.go", "if f == nil || r.Settle == nil || f.wasUnknown {", "if f == nil || r.Settle == nil {"},
			{store + "/record.go", "if r.Settle != nil && !owned[i].wasUnknown {", "if r.Settle != nil {"},
		}, store, "TestEachCallIsChargedOnce"},
		{"M34", "a refusal after an unknown call ends as failed", []edit{{
			store + "/record.go", "\t\tqueueKeepDoubt(b, doubted, true)\n", "",
		}}, store, "TestWhatMayHaveBeenSentDoesNotEndAsIfItHadNot"},
		{"M35", "resend has no bound", []edit{{
			store + "/unknown.go", "d.may AND m.resends < $2 AS again", "d.may AND $2 >= 0 AS again",
		}}, store, "TestUnknownCallsAreRepeatedAsOftenAsAllowedAndNoMore"},
		{"M36", "the account of an unknown call is as good as any for the next", []edit{{
			"internal/route/plan.go", "\tif others {\n", "\tif false {\n",
		}}, "internal/route", "TestAnAccountThatMayHaveSentItComesLast"},
		{"M37", "a message that may have been sent is resent without force", []edit{{
			store + "/message.go", "if doubt && !force {", "if doubt && false {",
		}}, store, "TestResendOfWhatMayHaveBeenSentWantsForce"},
		{"M38", "a late acceptance does not settle what was given up", []edit{{
			store + "/record.go", "\t\tqueueLate(b, batch, owned)\n", "",
		}}, store, "TestALateAcceptanceSettlesWhatWasGivenUpOrIsDueAgain"},
		{"M39", "a call of several messages that died with its replica is made again", []edit{{
			engine + "/plan.go", "\tp.forbidRepeats(&in)\n", "",
		}}, engine, "TestAClaimSaysWhichCallsMustNotBeRepeated"},
	}
}
