package smtp

import (
	"strings"

	gomessage "github.com/emersion/go-message"

	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// Bounces and automatic replies both come from the null address, and both may quote our subject, which may mention deliveries.
// These lists tell them apart; all texts are in lower case.
var (
	// replyFields are header fields of automatic replies: for an absent person, or from a help desk.
	replyFields = []string{
		"X-Autoreply", "X-Auto-Reply", "X-Autoreply-From", "X-Autorespond", "X-Autoresponder", "X-Auto-Response", "X-Mail-Autoreply",
		"X-Vacation", "X-Ms-Exchange-Inbox-Rules-Loop", "X-Zendesk-From-Account-Id", "X-Otrs-Loop", "X-Rt-Loop-Prevention",
		"X-Apple-Unsubscribe",
	}
	// replySubjects begin the subject of an automatic reply, from any sender.
	replySubjects = []string{
		"automatic reply", "auto reply", "auto-reply", "autoreply", "auto:", "auto response", "auto-response", "autoresponse", "out of office",
		"out of the office", "out-of-office", "ooo:", "vacation", "away from", "on vacation", "on leave", "i am away", "i'm away",
		"automatische antwort", "abwesenheit", "abwesend", "autoantwort",
		"réponse automatique", "reponse automatique", "absence du bureau", "absent du bureau", "absence :", "absence:", "message d'absence",
		"respuesta automática", "respuesta automatica", "fuera de la oficina", "fuera de oficina", "ausente",
		"risposta automatica", "fuori sede", "fuori ufficio", "assenza",
		"resposta automática", "resposta automatica", "fora do escritório", "fora do escritorio", "ausência",
		"automatisch antwoord", "afwezig", "niet aanwezig", "autosvar", "automatiskt svar", "automatisk svar", "frånvaro", "fravær",
		"automaattinen vastaus", "poissaolo", "automatická odpověď", "automatická odpoveď", "autoodpowiedź", "odpowiedź automatyczna",
		"automatyczna odpowiedź", "automatikus válasz", "răspuns automat", "automatski odgovor", "otomatik yanıt", "otomatik cevap",
		"автоответ", "автоматический ответ", "автоматична відповідь", "автоматичен отговор", "αυτόματη απάντηση", "מענה אוטומטי", "رد تلقائي",
		"自動返信", "自動応答", "不在", "自动回复", "自動回覆", "外出", "자동 회신", "자동응답", "부재중",
	}
	answerSubjects  = []string{"re:", "re :", "aw:", "antw:", "sv:", "vs:", "odp:", "r:", "rif:", "res:", "ynt:", "回复", "回覆", "答复"}
	bounceSubjects  = []string{"undeliver", "non-delivery", "failure notice", "delivery failure", "delivery failed", "delivery has failed", "delivery status", "returned mail", "mail delivery", "mail failure", "failed mail", "mail failed", "mail error", "processing error", "returned to sender", "could not be delivered", "not delivered", "delivery notification", "delivery problem", "delivery error", "message status", "unzustellbar", "non remis", "no entregado", "メールエラー"}
	warningSubjects = []string{"warning:", "delayed", "delivery delay", "delay in delivery"}
	// warningWords say in the text that the reporter keeps trying.
	warningWords = []string{
		"warning message only", "do not need to resend", "will be retried", "delivery attempts will continue", "will continue to try", "will keep trying",
		"still being retried", "has not yet been delivered", "not been delivered yet", "has been delayed", "postponed", "is being delayed", "advisory-only", "no action is required on your part",
	}
	daemonSenders     = []string{"mailer-daemon", "mailer_daemon", "mail-daemon", "maildaemon", "mail-deamon", "mdaemon@"}
	postmasterSenders = []string{"postmaster@", "post_master@", "post-master@", "mail delivery", "mail administrator", "mail system"}
	// failureWords are what a bounce without a code says.
	failureWords = []string{
		"could not be delivered", "couldn't be delivered", "cannot be delivered", "can't be delivered", "can not be delivered", "not be delivered", "not delivered",
		"undeliver", "delivery failed", "delivery has failed", "delivery failure", "delivery to the following", "delivery error", "delivering your mail",
		"failed to deliver", "failed permanently", "unable to deliver", "could not deliver", "couldn't deliver", "not able to deliver", "did not reach", "delivery problem", "unknown user", "user unknown", "user not known", "invalid final delivery", "no such user", "invalid user",
		"not a valid user", "unknown recipient", "recipient unknown", "does not exist", "doesn't exist", "mailbox full", "mailbox is full", "over quota", "quota exceeded", "permanent error",
		"permanent failure", "permanent fatal errors", "fatal error", "automatically rejected", "returned to you", "returned to sender", "unrouteable", "no mailbox", "address not found", "recipient not found",
		"unzustellbar", "nicht zugestellt", "n'a pas pu être", "n'a pu être", "non remis", "no se pudo entregar", "no se ha podido", "non è stato possibile", "não foi possível", "niet worden bezorgd",
		"не может быть", "не доставлено", "не удалось доставить", "配信できません", "配送できません", "無法傳送", "无法投递", "无法送达", "退信",
	}
)

// isAutoReply reports whether the message is an automatic reply: the owner of the mailbox is away, or a help desk answers. That
// is not a bounce, whatever its subject says. Many servers also mark their free-text bounces as automatic replies, and Postfix
// marks its reports. So mail from a mail daemon does not count as one, nor does mail that names a recipient with a reply.
func (r *report) isAutoReply() bool {
	if r.status != nil || r.feedback != nil || r.receipt || r.header.Has("X-Failed-Recipients") {
		return false
	}
	subject := r.subject()
	for _, s := range replySubjects {
		if strings.HasPrefix(strings.TrimLeft(subject, " [(<*"), s) {
			return true
		}
	}
	if strings.EqualFold(strings.TrimSpace(r.header.Get("Precedence")), "auto_reply") {
		return true
	}
	if strings.EqualFold(r.header.Get("X-Autogenerated"), "reply") { // "mirror" is forwarded mail
		return true
	}
	for _, name := range replyFields {
		if v := r.header.Get(name); v != "" && !strings.EqualFold(v, "no") {
			return true
		}
	}
	auto := autoSubmitted(&r.header)
	return auto != "" && auto != "no" && !r.fromDaemon() && (r.answers() || !r.prose().quotesReply())
}

// autoSubmitted is the keyword of RFC 3834 section 5, or "" if there is none.
func autoSubmitted(h *gomessage.Header) string {
	word, _, _ := strings.Cut(strings.ToLower(h.Get("Auto-Submitted")), ";")
	word, _, _ = strings.Cut(strings.TrimSpace(word), " ") // a comment may follow
	return word
}

// isBounce reports whether a message in free text is a bounce. The mark of a daemon is enough, and so is a postmaster's name with
// the subject of a bounce. One of these two alone is not enough: people write as postmasters, and answers have the subject that
// we wrote. Then the text must mention a failure.
func (r *report) isBounce() bool {
	if r.header.Has("X-Failed-Recipients") {
		return true
	}
	if r.isAutoReply() {
		return false
	}
	from := strings.ToLower(r.header.Get("From"))
	if r.fromDaemon() {
		return true
	}
	subject := r.subject()
	if r.answers() {
		return containsAny(from, postmasterSenders[:3]) && r.prose().quotesReply()
	}
	named := containsAny(subject, bounceSubjects) || containsAny(subject, warningSubjects)
	switch postmaster := containsAny(from, postmasterSenders); {
	case named && postmaster:
		return true
	case named || postmaster:
		return r.prose().quotesReply() || containsAny(strings.ToLower(r.prose().text), failureWords)
	default:
		return r.prose().namesReply()
	}
}

// answers reports whether the subject begins like that of an answer. No bounce begins like that.
func (r *report) answers() bool {
	subject := r.subject()
	for _, s := range answerSubjects {
		if strings.HasPrefix(subject, s) {
			return true
		}
	}
	return false
}

func (r *report) fromDaemon() bool {
	from := strings.ToLower(r.header.Get("From"))
	if _, addr, ok := strings.Cut(from, "<"); ok {
		from = addr
	}
	return containsAny(from, daemonSenders) || strings.Contains(string(r.text), "qmail-send program") || r.returned()
}

// returned reports whether the comment of Auto-Submitted is that of Sendmail's bounces.
func (r *report) returned() bool {
	auto := strings.ToLower(r.header.Get("Auto-Submitted"))
	return strings.Contains(auto, "(failure)") || strings.Contains(auto, "(warning-")
}

func (r *report) isWarning() bool {
	return containsAny(r.subject(), warningSubjects) || containsAny(strings.ToLower(r.prose().text), warningWords)
}

func (r *report) subject() string {
	s, err := r.header.Text("Subject")
	if err != nil {
		s = r.header.Get("Subject")
	}
	return strings.TrimSpace(strings.ToLower(s))
}

// quotesReply reports whether the text contains a server's reply, outside of quoted mail.
func (p *prose) quotesReply() bool {
	for line := range strings.Lines(p.text) {
		line = strings.TrimSpace(line)
		if code, enhanced := smtpcode.Find(line); (code != "" || enhanced != "") && !strings.HasPrefix(line, "> ") {
			return true
		}
	}
	return false
}

// namesReply reports whether a recipient's block has a server's reply.
func (p *prose) namesReply() bool {
	for _, b := range p.blocks {
		if code, enhanced := smtpcode.Find(replyIn(b.lines)); code != "" || enhanced != "" {
			return true
		}
	}
	return false
}
