"""The words that the guardrails look for, in each language a draft may be written in.

Knows wording, not medicine, and not what a check makes of it. Every pattern is held against a text that is folded (small
letters, no accents, half-width marks), so "próstata" stands here as "prostata". A word begins and ends where a Latin
letter or digit does; between ideographs there is no such place, so those stand for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrases:
    """What one language has for each thing a check listens for.

    Attributes
    ----------
    clause
        Where a new statement begins within a sentence: what is denied before it is not denied behind it.
    absent
        Says that something is not there, or is as it should be.
    old
        An abnormality that "nothing acute" does not contradict.
    advice
        What should be done, not what is seen.
    prior, no_prior
        An earlier examination is spoken of; there is none, or it should be looked for.
    aged, months
        An age, its number in the first group that is not empty.
    modalities
        Words by family of modalities; a family that is missing is not looked for.
    """

    left: re.Pattern[str]
    right: re.Pattern[str]
    both: re.Pattern[str]
    clause: re.Pattern[str]
    absent: re.Pattern[str]
    abnormal: re.Pattern[str]
    old: re.Pattern[str]
    all_normal: re.Pattern[str]
    advice: re.Pattern[str]
    prior: re.Pattern[str]
    no_prior: re.Pattern[str]
    measure: re.Pattern[str]
    of_men: re.Pattern[str]
    of_women: re.Pattern[str]
    aged: re.Pattern[str]
    months: re.Pattern[str]
    child: re.Pattern[str]
    elder: re.Pattern[str]
    contrast: re.Pattern[str]
    no_contrast: re.Pattern[str]
    modalities: Mapping[str, re.Pattern[str]]
    meta: re.Pattern[str]

    def described(self, text: str) -> list[str]:
        """The clauses of a folded sentence, without advice."""
        clauses = [c for part in self.clause.split(text) if any(map(str.isalnum, c := part.strip()))]
        return [clause for clause in clauses if not self.advice.search(clause)]

    def affirmed(self, text: str) -> Iterator[str]:
        """The clauses of a folded sentence that say something is there.

        In "right lung, no nodule" the first clause says nothing yet: it is what the denial is about.
        """
        clauses = self.described(text)
        for clause, following in zip(clauses, [*clauses[1:], ""], strict=False):
            denied = self.absent.match(following) and not self.abnormal.search(clause)
            if not denied and not self.absent.search(clause):
                yield clause


def _any(*alternatives: str) -> re.Pattern[str]:
    """One of these, not within a Latin word or number; beside an ideograph there is no such limit."""
    return re.compile(rf"(?:(?<![a-z0-9])|(?![a-z0-9]))(?:{'|'.join(alternatives)})(?:(?![a-z0-9])|(?<![a-z0-9]))")


_NUMBER = r"\d[\d.,]*"
_OF_THE_PICTURE = (
    r"(?!(?:-hand)?(?: (?:side|part|half|edge|corner|border))? of the (?:image|picture|film|screen|photo))"
)
_NOT_A_SIDE = r"(?! (?:lateral )?(?:decubitus|lateral view|lateral projection)| (?:anterior|posterior) oblique)"
_EXAMS = r"(?:exam\w*|stud(?:y|ies)|radiograph\w*|film\w*|x-?rays?|ct|mri?|imag\w+|scans?|ultraso\w+|reports?)"
_FINDING = r"(?:opacit\w+|consolidation\w*|infiltrat\w+|nodul\w+|mass(?:es)?|lesion\w*|effusion\w*|fractur\w+)"

_ENGLISH = Phrases(
    left=_any(
        rf"left(?:ward|-sided)?(?! (?:the|in place|in situ|behind|untreated|over)\b){_OF_THE_PICTURE}{_NOT_A_SIDE}"
    ),
    right=_any(
        rf"(?<!all )(?<!is )right(?:ward|-sided)?(?! (?:angle\w*|away|now|after|before|next|behind)\b){_OF_THE_PICTURE}{_NOT_A_SIDE}",
        r"(?<=is )right(?=[ -](?:sided|upper|lower|middle|lung|pleural)\b)",
    ),
    both=_any(
        "bilateral(?:ly)?",
        r"both(?! (?:of these|(?:the )?[\w-]+ and|(?:the )?(?:frontal|lateral)?\s?(?:views?|images|pictures|projections|sequences|planes|series|exam\w*|studies))\b)",
    ),
    clause=re.compile(
        r"[;:]|,?\s*\b(?:but|however|although|though|whereas|while|except(?: for)?|apart from|aside from)\b"
        r"|,?\s+(?=(?:otherwise|without|with (?:no|normal|clear)|and (?:no|normal|clear))\b)"
        r"|,?\s+with\s+(?=(?:an?|left|right|bilateral|mild|moderate|small|large|associated)\b)"
        r"|,\s+(?=(?:there|the|an?|no|with|which|recommend\w*|suggest\w*|consider|advise|ct|mri|further|follow|correlat\w+)\b)"
        r"|,\s+(?=[^,;]*\b(?:recommended|advised|suggested|may help|could help)\b)|\s+and\s+(?=(?:there|the)\b)"
    ),
    absent=_any(
        "no|not|nor|none|without|normal(?:ly)?|clear|unremarkable|intact|absent|absence of|negative|free of",
        "rather than|unlikely|preserved|patent",
    ),
    abnormal=_any(
        r"opacit\w+|consolidation\w*|infiltrat\w+|ground[- ]glass|effusions?|pneumothora(?:x|ces)",
        r"pneumonia\w*|fractur\w+|mass(?:es)?|nodul\w+|lesions?|enlarge\w+|cardiomegaly|ha?emorrhag\w*",
        r"ha?ematomas?|infarct\w*|o?edema|atelectas[ei]s|tumou?r\w*|malignan\w+|metasta\w+|stenos[ei]s",
        r"aneurysm\w*|thromb\w+|embol\w+|dilat\w+|thicken\w+|dislocat\w+|hernia\w*|cysts?|calcul(?:us|i)",
    ),
    old=_any(
        r"(?<!-)(?<!year )(?<!years )old|heal(?:ed|ing)|chronic|calcifi\w+|degenerative|post-?(?:operative|surgical)|stable|unchanged",
        r"benign|sequelae?|scar\w*",
    ),
    all_normal=_any(
        r"no acute|normal (?:study|chest|exam\w*|radiograph\w*|scan|ct|mri?|ultrasound|appearances?)",
        r"unremarkable|no (?:significant |definite |evident )?abnormalit\w+",
        r"(?:^|(?<=study is )|(?<=examination is ))normal\W*$",
    ),
    advice=_any(
        r"recommend\w*|suggest(?:ed)? (?:further|follow|correlation|comparison|ct|mri?|ultrasound|contrast)",
        "(?:is|are) (?:suggested|advised|indicated|warranted|needed)",
        "consider(?:ed)? (?:a |an |further |contrast|ct|mri?|ultrasound|follow)|advise[ds]?",
        "(?:may|might|could|would|should) (?:help|be (?:helpful|useful|obtained|performed|considered|compared|of (?:help|use)))",
        "for further (?:evaluation|assessment|characteri[sz]ation)",
        "if (?:any|available|clinically|there (?:is|are)|symptoms|needed|indicated)",
    ),
    prior=_any(
        "unchanged",
        rf"(?:compared|comparison) (?:to|with)\b[^.]{{0,40}}\b(?:prior|previous|earlier|last|old|yesterday|dated?|{_EXAMS}|[12]\d{{3}})",
        "compared to prior",
        "interval (?:change|increase|decrease|improvement|development|growth|progression|resolution|worsening|removal|placement)",
        "previously",
        r"previous (?:\w+ )?" + _EXAMS,
        r"(?:since|from|on|to|with|than) (?:the |a |her |his )?(?:prior|previous|last)(?=\W*$|[.,;)]| (?:one|visit|day)\b| "
        + _EXAMS
        + ")",
        rf"(?:prior|earlier) (?:chest |abdominal |outside |available )?{_EXAMS}",
        "(?:is|are|remains?|appears?) (?:grossly |essentially |overall )?stable",
        "(?:has|have) (?:slightly |markedly |significantly )?(?:improved|worsened|resolved|progressed|grown)",
        r"(?:has|have) (?:slightly |markedly |significantly )?(?:increased|decreased|enlarged)(?=\W*$|[.,;]| (?:in|since|slightly|markedly|and|compared|from)\b)",
        "again (?:seen|noted|demonstrated|identified|shown)",
        rf"new(?:ly)? (?:\w+ ){{0,2}}?{_FINDING}",
        "no (?:significant |interval |appreciable )*change",
    ),
    no_prior=_any(
        "(?:no|without(?: any| an?)?|absence of|lack of) (?:relevant |recent |other |available |such |access to )*(?:prior|previous|earlier|comparison|old (?:film|stud|image))",
        r"(?:prior|previous|earlier|comparison)\b[^.]{0,50}\b(?:un|not (?:been )?|none )(?:available|provided|given|possible|at hand|submitted)",
        r"none (?:available|given|provided)|(?:no|without)\b[^.]{0,30}\b(?:for|available for) comparison",
        "(?:cannot|can not|could not) be compared",
    ),
    measure=re.compile(
        rf"(?:{_NUMBER}|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|half an?))[\s-]*"
        r"(?:mm|cm|ml|cc(?! (?:view|projection|image|and)s?)|hu|inch(?:es)?|millimet(?:er|re)s?|centimet(?:er|re)s?|millilit(?:er|re)s?|hounsfield)(?![a-z])"
        r"|\b(?:hounsfield units?|hu)\s*(?:of|=|:)?\s*-?\d"
    ),
    of_men=_any(
        r"prostat\w*|testic\w*|testes|scrot\w*|seminal vesicles?|penis|penile|epididym(?:is|al)|males?|m[ae]n",
        "gentleman|boys?|he|(?<!bundle of )his",
    ),
    of_women=_any(
        r"uter(?:us|ine)|ovar(?:y|ies|ian)|endometri\w*|myometri\w*|(?:uterine )?cervix|vagina[ls]?|fallopian",
        r"adnexal (?:mass|cyst|lesion)|hysterectom\w*|females?|wom[ae]n|lady|girls?|she|her(?!-)|pregnan\w*",
        r"f(?:o)?etus|gestational sac|postmenopaus\w*",
    ),
    aged=_any(r"(\d{1,3})[- ]?years?[- ]?old|(\d{1,3}) ?(?:y/o|yo|y\.o\.?)|(\d{1,3}) years of age|aged (\d{1,3})"),
    months=_any(r"(\d{1,2})[- ]?(?:months?|weeks?|days?)[- ]?old"),
    child=_any(r"child(?!-| pugh)|infants?|neonat\w*|newborn|pa?ediatric|toddler"),
    elder=_any("elderly|senile|octogenarian"),
    contrast=_any(
        "contrast[- ]enhanced|post[- ]?(?:contrast|gadolinium)",
        "(?:after|following) (?:(?:the )?(?:administration|injection) of )?(?:intravenous |iv |oral |gadolinium )*(?:contrast|gadolinium)",
        "(?:with|using) (?:intravenous |iv |oral |iodinated )*contrast(?! (?:between|resolution|to))",
        "(?:intravenous|iv|iodinated) contrast|contrast (?:agent|medium|material|administration|injection)",
        "gadolinium|(?:arterial|portal venous|portal|nephrographic|delayed) phase",
        r"(?:ring|rim|avid|heterogeneous|homogeneous|peripheral|nodular|intense|meningeal|leptomeningeal|dural|abnormal|pathologic(?:al)?|contrast|mild|marked|non)(?:ly)?[- ]?enhanc\w+",
        "(?:it|lesion|mass|nodule|tumou?r|wall) enhances",
    ),
    no_contrast=_any(
        "non[- ]?contrast(?:[- ]enhanced)?",
        "(?:without|no) (?:the )?(?:(?:use|administration|injection) of )?(?:intravenous |iv |oral |iodinated )*contrast(?: (?:agent|medium|material|administration|injection))?",
        r"(?:contrast|gadolinium)\b[^.]{0,30}\bnot (?:been )?(?:given|used|administered|injected)",
        "(?:non|un)[- ]?enhanced",
    ),
    modalities={
        "projection": _any(r"radiograph\w*|x[- ]?rays?|(?:plain|chest) films?"),
        "CT": _any(r"ct(?![- ]ratio)|computed tomograph\w*|hypoattenuat\w*|hyperattenuat\w*"),
        "MR": _any(
            r"mr(?!\. ?\w)|mri|mr[av]|mrcp|magnetic resonance|t[12][- ]?weighted|flair",
            "(?:hyper|hypo)intens(?:e|ity|ities)",
        ),
        "US": _any(r"ultraso(?:und|nograph\w*)|sonograph\w*|(?:hyper|hypo|iso|an)?echo(?:ic|genic\w*)|doppler"),
    },
    meta=_any(
        "as an? (?:ai|artificial|(?:large |medical |vision )*language|(?:virtual |medical )?assistant)",
        r"(?:^|(?<=[,;:(])\s*|(?<=\bas )|(?<=\bbut )|(?<=\band )|(?<=\bthat )|(?<=\bso ))i (?:cannot|can't|can’t|can not|am (?:unable|not able|an? (?:ai|assistant)|sorry|not a (?:doctor|physician|radiologist))|apologi[sz]e|hope|do not have|don't have)",
        "i['’]m (?:sorry|an ai|unable|not able|not a (?:doctor|physician|radiologist))|language model",
        r"here(?: is|['’]s) (?:the|a|your|my)(?: \w+){0,2} report|hope this helps|(?:let me know|feel free)",
        "not (?:intended as |a substitute for |a replacement for )+(?:medical|professional)",
        "(?:provide|give|offer) (?:a )?(?:medical )?(?:advice|diagnosis)",
        "consult (?:a|your|with a|an) (?:qualified |medical |healthcare |licensed )*(?:doctor|physician|professional|radiologist|provider)",
    ),
)

_PICTURED = r"(?! de la (?:imagen|pantalla|fotografia|foto))"
_ESTUDIO = r"(?:estudio|examen|exploracion|control|radiografia|placa|tc|tac|rm|rmn|resonancia|tomografia|ecografia|imagen|informe|prueba)(?:e?s)?"
_ANTERIOR = r"(?:previ[oa]s?|(?<!imagen )(?<!imagenes )anterior(?:es)?|de fecha|realizad[oa]s? (?:el|en) (?:dia )?\d|del? (?:dia )?\d{1,2}(?:[/-]| de [a-z]+ de)|del? (?:ano )?[12]\d{3})"
_HALLAZGO = r"(?:opacidad\w*|consolidacion\w*|infiltrad\w*|nodul\w*|masas?|lesion\w*|derrames?|fracturas?)"

_SPANISH = Phrases(
    left=_any(rf"izquierd[oa]s?{_PICTURED}", rf"izq(?:d[oa]s?)?{_PICTURED}", rf"izd[oa]s?{_PICTURED}"),
    right=_any(rf"derech[oa]s?{_PICTURED}", rf"dch[oa]s?{_PICTURED}"),
    both=_any(
        "bilateral(?:es|mente)?",
        r"amb[oa]s(?! (?:proyecci\w+|imagenes|vistas|incidencias|secuencias|planos|series|estudios|extremos|casos)\b)",
        "l[oa]s dos (?:pulmones|rinones|hemitorax|mamas|campos|bases|caderas|rodillas|manos|pies|lados)",
    ),
    clause=re.compile(
        r"[;:]|,?\s*\b(?:pero|aunque|mientras que|sin embargo|no obstante|excepto|salvo|a excepcion de|con excepcion de)\b"
        r"|,?\s+(?=(?:sin|y sin|y no|por lo demas)\b)"
        r"|,?\s+con\s+(?=(?:una?|leve|pequen[oa]|moderad[oa]|gran|derrame)\b)"
        r"|,\s+(?=(?:se|hay|existen?|el|la|los|las|una?|no|con|que|presenta|recom\w+|suger\w+|valorar|considerar|completar|conviene|a correlacionar|correlacionar)\b)"
        r"|\s+y\s+(?=(?:se|hay|existen?|el|la|los|las|una?)\b)"
    ),
    absent=_any(
        r"no(?! (?:se )?(?:pueden? )?(?:descart|exclu)\w*)|sin(?! embargo)|ausencia|ausentes?|ningun[oa]?s?",
        "ni|tampoco|normal(?:es|mente|idad)?|conservad[oa]s?|libres?|permeables?|integr[oa]s?|indemnes?",
        "respetad[oa]s?|negativ[oa]s?|(?<!no )se descartan?|poco probable|claros",
    ),
    abnormal=_any(
        r"opacidad\w*|consolidacion\w*|infiltrad\w*|vidrio (?:deslustrado|esmerilado)|derrames?|neumotorax",
        r"neumonia\w*|fractur\w+|masas?|nodul\w+|lesion(?:es)?|cardiomegalia|agrandad\w+|aument\w+ de tamano",
        r"hemorragi\w+|hematomas?|infart\w+|edemas?|atelectasias?|tumor\w*|neoplasi\w*|metastasis|estenosis",
        r"aneurismas?|tromb\w+|emboli\w*|dilata\w+|engrosa\w+|luxacion\w*|hernia\w*|quistes?|litiasis|calculos?",
    ),
    old=_any(
        r"antigu[oa]s?|cronic[oa]s?|calcifi\w+|calcio|degenerativ[oa]s?|residual(?:es)?",
        r"secuelas?|cicatri\w+|pos?t?-?(?:quirurgic|operatori)[oa]s?|estables?|benign[oa]s?|sin cambios",
    ),
    all_normal=_any(
        r"(?:sin|no (?:se )?(?:hay|observan?|identifican?|aprecian?|evidencian?|visualizan?|ven?|detectan?|demuestran?|muestra)) (?:otr[oa]s |evidencia de |signos de )?(?:alteracion(?:es)?|anomalias?|anormalidad(?:es)?|hallazgos|patologia)(?: \w+)?",
        rf"(?:{_ESTUDIO}|torax)(?: \w+){{0,4}} (?:normal(?:es)?|sin (?:alteraciones|hallazgos))",
        r"dentro de (?:la normalidad|(?:los )?limites (?:de la normalidad|normales))|^normal\W*$",
    ),
    advice=_any(
        r"recom(?:ienda|endable|endacion|iendan|endamos)\w*|se sugier[ea]\w*|sugerimos",
        "se aconseja|aconsejable|conviene|convendria",
        "valorar(?! (?:por|debido))|considerar|completar con|complementar con|correlacionar",
        "podri?an? (?:ser util(?:es)?|ayudar|valorarse|realizarse)|se solicita|esta(?:ria)? indicad[oa]",
        r"si (?:los |las )?(?:hay|hubiera|existen?|existiera|estan? disponibles?|dispon\w+|procede|clinicamente)",
    ),
    prior=_any(
        rf"(?:comparacion|comparad[oa]s?|comparando|comparativamente) (?:con|a|al)\b[^.]{{0,40}}\b(?:{_ESTUDIO}|previ[oa]s?)",
        rf"(?:respecto|con relacion|en relacion|frente) (?:con |del? |al? |(?:el|la|los|las) )+(?:{_ESTUDIO}|previ[oa]s?|anterior(?:es)?)",
        rf"{_ESTUDIO} (?:(?:simple|radiologic[oa]|de (?:torax|abdomen|control|craneo|columna|pelvis|rodilla|mama)) ){{0,2}}{_ANTERIOR}",
        rf"(?:previ[oa]s?|anterior(?:es)?) {_ESTUDIO}",
        r"sin (?:grandes |claros )?cambios(?: (?:significativ|evolutiv|relevant|apreci|valorabl|de interes|important)\w*)*(?=\s*(?:[.,;)]|$|respecto|con respecto|en relacion|desde|en el intervalo|frente))",
        r"no (?:se (?:observan|aprecian|identifican|evidencian)|hay|existen|ha habido) cambios (?:significativ\w+|evolutiv\w+|relevantes|respecto|desde|con respecto)",
        r"(?:permanecen?|se mantienen?|continuan?|es|son|esta|estan|lesion|nodulo|tamano|hallazgos?) (?:\w+ )?estables?",
        "han? (?:aumentado|disminuido|mejorado|empeorado|progresado|crecido|desaparecido|variado)|(?<!si )persisten?",
        r"(?:previamente|anteriormente) (?:descrit|conocid|visib|vist|observad|informad)\w*",
        r"ya (?:conocid|descrit|visible en)\w*|de (?:nueva|reciente) aparicion",
        rf"nuev[oa]s? {_HALLAZGO}",
    ),
    no_prior=_any(
        rf"(?:no (?:se )?(?:hay|existen?|dispon\w+|cuenta|aportan?|constan?|tenemos)|sin|ausencia de|carec\w+)(?: de| con)?(?: disponibilidad de)?(?: otr[oa]s)?(?: {_ESTUDIO})?(?: (?:de )?imagen\w*)?(?: radiologic[oa]s)?(?: disponibles)? (?:previ[oa]s?|anterior(?:es)?|(?:para|de) compara\w+|comparativ[oa]s?)",
        r"(?:previ[oa]s?|anterior(?:es)?|comparativ[oa]s?)\b[^.]{0,25}\bno (?:estan? )?(?:disponibles?|aportad\w+)",
        r"no (?:es posible|se puede|puede)(?: \w+){0,3} compara\w*|ningun[oa]? (?:disponible|previo)",
    ),
    measure=re.compile(
        rf"(?:{_NUMBER}|\b(?:un|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|medio))[\s-]*"
        r"(?:mm|cm|cms|ml|cc|uh|hu|milimetros?|centimetros?|mililitros?|unidades (?:de )?hounsfield|hounsfield)(?![a-z])"
        r"|\b(?:unidades hounsfield|uh)\s*(?:de|=|:)?\s*-?\d"
    ),
    of_men=_any(
        r"prostat\w*|testicul\w*|escrot\w*|epididim\w*|vesiculas? seminal(?:es)?|pene|peniano|peneano",
        "varon(?:es)?|hombres?|(?:sexo|paciente) masculino|masculino de",
    ),
    of_women=_any(
        r"utero|uterin[oa]s?|ovari\w*|endometri\w*|miometri\w*|cervix|(?<!tunica )vagina(?:l|les)?",
        r"trompas? (?:uterina|de falopio)|anexial(?:es)?|histerectom\w*|mujer(?:es)?",
        r"(?:sexo|paciente) femenin[oa]|femenina de|embaraz\w*|gestante|gestacion(?:al)?|feto|posmenopausic\w*",
    ),
    aged=_any(
        r"(?<!evolucion )(?<!historia )(?<!seguimiento )(?<!duracion )(?<!mas )(?<!menos )(?<!mayor )(?<!menor )(?<!mayores )(?<!menores )(?<!fumador )(?<!fumadora )(?<!tabaquismo )(?<!partir )(?<!osea )(?<!antecedente )(?<!antecedentes )de (\d{1,3}) anos(?! (?:de (?!edad)|atras|antes))",
        r"(\d{1,3}) anos de edad|edad(?: de|:)? (\d{1,3})",
    ),
    months=_any(r"de (\d{1,2}) (?:meses|semanas|dias)(?: de (?:edad|vida))|lactante de (\d{1,2}) meses"),
    child=_any(r"nin[oa]s?|lactantes?|neonat\w*|recien nacid[oa]s?|pediatric[oa]s?|infantil(?:es)?"),
    elder=_any("ancian[oa]s?|senil(?:es)?|edad avanzada|octogenari[oa]"),
    contrast=_any(
        "con (?:medios? de )?contraste",
        "contraste (?:intravenoso|endovenoso|yodado|iodado|iv|ev|ev|oral|paramagnetico)",
        "(?:tras|despues de|luego de) (?:la )?(?:administracion|inyeccion) de|gadolinio|pos?t?[- ]?contraste",
        "(?:tc|tac|rm|rmn|tomografia|estudio|fases?) contrastad[oa]s?",
        "realces?(?! (?:acustico|sonico|posterior|ecogenico))|realza(?:n|ndo|miento)?",
        r"capta(?:n|cion)? (?:\w+ )?(?:de |el )?contraste|fase (?:arterial|portal|venosa|nefrografica|tardia)",
    ),
    no_contrast=_any(
        "sin (?:la )?(?:administracion de |inyeccion de |uso de |empleo de )?(?:medios? de )?contraste(?: (?:intravenoso|endovenoso|yodado|iodado|iv|ev|oral))?",
        r"no (?:se )?(?:ha |han )?(?:administr|utiliz|us|emple|inyect)\w+[^.;]{0,25}contraste(?: (?:intravenoso|endovenoso|yodado|iodado|iv|ev|oral))?",
        "no contrastad[oa]s?",
    ),
    modalities={
        "projection": _any(
            r"radiografi\w*|rayos[- ]?x|rx|telerradiografia|placas?(?= (?:simples?|de torax|de abdomen|radiografica))"
        ),
        "CT": _any(r"tc|tac|tcmd|tcar|angio-?ta?c|tomografi\w*|(?:hipo|hiper)atenua\w*"),
        "MR": _any(r"rmn?|resonancias?|secuencias? t[12]|potenciad[oa]s? en t[12]|flair|(?:hiper|hipo)intens\w*"),
        "US": _any(r"ecografi\w*|ultraso\w*|(?:hiper|hipo|iso|an)?eco(?:ic|genic)\w*|doppler"),
    },
    meta=_any(
        "como (?:una? )?(?:ia|ai|inteligencia artificial|(?:gran )?modelo|asistente)|soy (?:una?|solo)",
        r"modelo de lenguaje|inteligencia artificial|lo siento|(?:me )?disculp[oae]\w*",
        r"no (?:puedo|soy (?:medic|radiolog|capaz)\w*|me es posible|tengo (?:acceso|la capacidad))",
        "aqui (?:tiene|tienes|esta|le presento|presento) (?:el|un|su|tu)",
        "a continuacion(?:,| le| te) (?:presento|proporciono|ofrezco)|espero que (?:esto|le|te|esta)",
        "no sustituye|consulte (?:a|con) (?:su|un)",
    ),
)

_SIDED = "侧肺肾乳叶髋膝手足肩眼耳房室支锁肋髂颈"
_ZH_EXAM = r"(?:影像|检查|片|ct|mri?|x线|胸片|超声|资料)"

_CHINESE = Phrases(
    left=_any(r"(?<!图像)(?<!画面)(?<!图)左(?!右|前斜|后斜|侧位|侧卧|侧斜)"),
    right=_any(r"(?<!图像)(?<!画面)(?<!图)(?<!左)右(?!前斜|后斜|侧位|侧卧|侧斜)"),
    both=_any(
        rf"左右(?=[{_SIDED}])",
        "双(?=[侧肺肾乳上下中膝髋手足肩眼耳腕踝肘锁颈额颞顶枕基腋胸膈])",
        "两(?=[侧肺肾乳膝髋手足肩眼耳腋膈]|[上中下]肺|胸腔)",
    ),
    # a comma begins a statement where a verb follows or a side does; "未见骨折,脱位征象" goes on
    clause=re.compile(
        r"[;:。]|但|然而|仅(?=[左右见])|[,，](?=[左右双两]|[^,，;:。]*(?:见|示|呈|为|有|可|增|扩|考虑|提示|伴|清|正常|无|未|宽|窄|移|变|居中|通畅|建议|请|必要时|进一步|随访|复查))"
    ),
    absent=_any(
        "未(?:见|发现|显示|及|示|探及|累及|触及|增|扩|闻及)|无(?!回声|强化|名|菌|定形|痛|法)|没有|不支持",
        "(?<!不)(?<!不能)(?<!不可)(?<!不能完全)(?<!未)(?<!待)(?:除外|排除)",
        "(?<!边界)(?<!边缘)(?<!境界)(?<!轮廓)(?<!欠)(?<!不)清晰|(?<!不)(?<!非)正常|不大|不宽|(?<!不)居中",
        "(?<!不)(?<!欠)(?:光整|完整|通畅|规整)|阴性|否认|可能性(?:不大|小|低)",
    ),
    abnormal=_any(
        "结节|肿块|团块|占位|实变|斑片|片状(?!肺)|磨玻璃|渗出|浸润|空洞|积液|积气|气胸|肺炎|炎症|骨折|脱位",
        "出血|血肿|梗死|梗塞|栓塞|血栓|水肿|不张|肿瘤|癌|转移|狭窄|动脉瘤|增大|扩张|增厚|囊肿|结石|突出|梗阻",
        "穿孔|病灶|病变|异常",
    ),
    old=_any("陈旧|慢性|钙化|退行性|退变|术后|良性|愈合|瘢痕|纤维灶|硬结"),
    all_normal=_any(
        "未(?:见|发现)[^,。;]{0,12}(?:异常|病变)|无(?:明显|明确|确切|显著|急性)?异常",
        r"(?:胸片|胸部|检查|ct|平扫|x线|影像|颅脑|腹部|所见|表现)[^,。;]{0,6}(?<!不)正常|^正常\W*$",
    ),
    advice=_any(
        "建议|推荐|请结合|结合临床|必要时|宜(?:行|进一步)|可(?:行|进一步)|(?:进一步|定期)(?:检查|复查|随访|随诊)"
    ),
    prior=_any(
        r"较(?:前(?!方|部|缘|壁|下|上)|先前|上次|以前|既往|旧片|原片|20\d\d)",
        "(?:与|同|和|对比|比较|对照|比)[^,。;]{0,12}(?:前片|前次|上次|旧片|老片|原片)|(?:与|同|和|对比|比较)[^,。;]{0,6}(?:既往|先前|此前|之前)[^,。;]{0,8}(?:比|对照|相仿|相似|影像|检查|片|ct|mr)",
        "(?:前片|前次|上次|旧片|老片)[^,。;]{0,8}(?:比较|对比|相比|对照|相仿|检查|示|所见)",
        rf"(?:既往|先前|此前|前次|原){_ZH_EXAM}",
        "(?:与|同)前(?:相仿|大致|比|基本|一致|片)|(?:大致|基本)同前",
        "(?:未见|无|没有)(?:明显|显著|著)?变化|变化不(?:大|明显|著)",
        "(?:病灶|病变|结节|肿块|大小)[^,。;]{0,4}(?<!不)稳定|新发(?!脑梗|梗死|腔梗|骨折|急性)",
        "(?:病灶|病变|结节|肿块|积液)[^,。;]{0,6}(?:未见|无)(?:明显|显著)?改变|新出现|新增(?:病灶|结节)|复查(?:示|见|显示|片)",
        "(?:病灶|炎症|渗出|积液|结节|水肿|血肿)[^,。;]{0,6}(?:较.{0,8})?(?:已?(?:明显|部分|完全)?(?:吸收|消失|好转))",
    ),
    no_prior=_any(
        "(?:无|未提供|没有|缺乏|未附|未见)(?:可供|可|相关|任何|既往|近期|其他|此前|先前|以往|之前|的)*(?:前片|前次|旧片|既往|对比|比较|对照|先前|此前|历史|影像资料|参照)",
        "(?:无法|不能|未能)[^,。;]{0,10}(?:对比|比较|对照|评估变化)",
        "(?:前片|旧片|既往[^,。;]{0,8}|先前[^,。;]{0,8})(?:未提供|缺如|不可用|无法获得)",
    ),
    measure=re.compile(
        rf"(?:{_NUMBER}|[一二三四五六七八九十两半]+)\s*"
        r"(?:(?:mm|cm|ml|cc|hu)(?![a-z])|毫米|厘米|公分|毫升|亨氏单位|亨氏)|(?:ct值|hu)[^,。;\d]{0,6}-?\d"
    ),
    of_men=_any("前列腺|睾丸|附睾|阴囊|精囊|阴茎|精索|男(?:性|子|士|童|孩|婴)|患者,?男|男[,、/]"),
    of_women=_any(
        "子宫|卵巢|输卵管|宫颈|宫腔|阴道|(?:双侧?|左侧?|右侧?)附件区|女(?:性|子|士|童|孩|婴)|患者,?女",
        "女[,、/]|妊娠|孕(?:囊|妇|周)|怀孕|胎儿(?!型)|绝经",
    ),
    aged=re.compile(r"(?<!\d)(?<!骨龄)(?<!骨龄[约为])(\d{1,3})\s*周?岁(?!以上|以下|以前|以后|之前|之后|时|起)"),
    months=re.compile(r"(?<!\d)(\d{1,2})\s*个?(?:月|天|日)(?:龄|大|婴|患儿|幼儿)"),
    child=_any("儿童|患儿|婴(?:儿|幼儿)|新生儿|小儿|幼儿|[男女]童"),
    elder=_any("老年|高龄"),
    contrast=_any(
        "(?<!回声)增强(?=扫描|后(?!方)|ct|mr|检查|示|图像|各期)|(?<=[行及加和+])增强|强化|对比剂|造影剂",
        "(?:动脉|静脉|门脉|门静脉|延迟|实质)期|钆",
    ),
    no_contrast=_any(
        "未(?:行|做|作|用|使用|注射|注入|给予|应用|进行)[^,。;]{0,6}(?:增强(?:扫描|检查|ct|mri?)?|对比剂|造影剂)",
        "无(?:增强(?:扫描|检查|图像)?|对比剂|造影剂)|非增强(?:扫描|检查|ct|mri?)?|不(?:用|使用)(?:对比剂|造影剂)",
    ),
    modalities={
        "projection": _any("x ?-?(?:线|光|射线)|胸片|平片|dr|钼靶"),
        "CT": _any("ct|计算机(?:体层|断层)|断层扫描"),
        "MR": _any("磁共振|核磁|mri?|mr[av]|mrcp|t[12]wi?|dwi|flair|[长短]t[12]|[高低等]信号"),
        "US": _any("超声|b超|彩超|多普勒|回声"),
    },
    meta=_any(
        "作为(?:一个|一名|一款|一种|您的)?(?:专业的|医疗|医学)?(?:ai|人工智能|(?:大型?)?语言|大模型|智能|助手|模型)",
        "语言模型|人工智能|抱歉|对不起",
        "我(?:无法|不能|没有能力|不是医生|是(?:一个|一名|一款)?(?:ai|人工|语言|大|智能))",
        "(?:以下|下面)(?:是|为)[^,。;]{0,12}(?:报告|分析|描述)|希望(?:这|以上|对您|能帮)",
        "请(?:您)?(?:咨询|提供|上传)|(?:以上|本|此)[^。;]{0,12}仅供参考",
        "(?:不能|不可|无法|不应)(?:代替|替代|取代)[^,。;]{0,8}(?:医生|医师|诊断|专业|意见)|^好的(?=[,!。])",
    ),
)

PHRASES: Mapping[str, Phrases] = {"en": _ENGLISH, "es": _SPANISH, "zh": _CHINESE}
"""Every language a draft may be written in."""
